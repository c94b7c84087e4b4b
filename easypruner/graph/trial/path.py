"""The path of a forward pass: the steps that its code runs.

Code may compare widths, as in ``x + y if x.shape == y.shape else y``. Trials try some widths only.
So before a cut, its own widths are tried.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from easypruner.base.nested import map_tensors, tensors_in
from easypruner.base.user_code import user_line
from easypruner.errors import MaskError
from easypruner.graph.coupling.groups import ChannelGroup
from easypruner.graph.cutting.handlers import LayerHandler, resize_layers
from easypruner.graph.cutting.surgery import Kept
from easypruner.graph.recording.backends import TensorBackend
from easypruner.graph.recording.composites import run_parts
from easypruner.graph.recording.inventory import Attributes, StandIns, set_attributes
from easypruner.graph.recording.kinds import kind_of
from easypruner.graph.recording.meta_shapes import tensors_of
from easypruner.graph.recording.tape import Call, Tape, run_forward
from easypruner.graph.recording.values import UnknownValueError, Watcher, is_known
from easypruner.graph.trial.expected import STEPS

_COMBINING = frozenset({'add', 'sub', 'cat', 'where', 'maximum', 'minimum'})
_PRODUCTS = frozenset({'mm', 'addmm', 'bmm', 'baddbmm'})
_PRODUCT = 'matrix product'
_MOST_NAMED = 4

Step = tuple[str, str]
"""The name of an operation, and the path of the module that runs it."""

Path = Mapping[Step, float]
"""How often each step runs; infinite where it may run as often as it does."""


class _Walk:
    """Counts the steps of a pass.

    A step computes something of tensors of the network. What code computes of other tensors, such
    as a table of positions, is none: code may make a table anew for each width.

    Args:
        modules: dotted path -> module of the network.
        parameters: its parameters and buffers.
        inputs: the tensors that it gets.
    """

    def __init__(
        self,
        modules: Mapping[str, nn.Module],
        parameters: Iterable[Tensor],
        inputs: Iterable[Tensor],
    ) -> None:
        self.path: Counter[Step] = Counter()
        # Elsewhere, torch multiplies tensors in another way if a width is 1.
        self._linear = {path for path, module in modules.items() if isinstance(module, nn.Linear)}
        # Tensors are kept, so that no other tensor gets the id of one of them.
        self._parameters = {id(tensor): tensor for tensor in parameters}
        self._made = {id(tensor): tensor for tensor in inputs}

    def take(
        self, name: str, module: str, inputs: Sequence[Tensor], outputs: Sequence[Tensor]
    ) -> Step | None:
        """Note an operation; return its step, or None if it is none."""
        made = sum(id(tensor) in self._made for tensor in inputs)
        if not made and not any(id(tensor) in self._parameters for tensor in inputs):
            return None
        own = self._made if made else self._parameters
        own.update({id(tensor): tensor for tensor in outputs})
        name = name.removesuffix('_')
        if name in _PRODUCTS and module in self._linear:
            name = _PRODUCT
        # A bias may be added by an operation of its own, which depends on the layout in memory.
        elif name not in STEPS and not (name in _COMBINING and made > 1):
            return None
        self.path[name, module] += 1
        return name, module


class _SurplusError(Exception):
    """A step runs more often than without a cut."""

    def __init__(self, step: Step) -> None:
        super().__init__(f'{step[0]} runs')
        self.step = step


class _PathWatcher(Watcher):  # type: ignore[no-untyped-call]
    """Counts the steps of a pass, and raises at the first that runs more often than expected."""

    def __init__(self, stand_ins: StandIns, walk: _Walk, expected: Path | None) -> None:
        super().__init__()
        self._stand_ins, self._walk, self._expected = stand_ins, walk, expected

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        kind = kind_of(func)
        if kind.is_composite:
            return run_parts(self, func, args, kwargs)
        result = self.run(func, args, kwargs)
        inputs = tensors_of((*args, *kwargs.values()) if kwargs else args)
        step = self._walk.take(kind.name, self._stand_ins.path, inputs, tensors_of((result,)))
        if step is not None and self._walk.path[step] > self._most(step):
            raise _SurplusError(step)
        return result

    def _most(self, step: Step) -> float:
        return math.inf if self._expected is None else self._expected.get(step, 0)


@dataclass(frozen=True)
class CutToTry:
    """A cut as far as a forward pass shows it.

    Attributes:
        kept: the indices that stay.
        attributes: the attributes of modules to set.
        handlers: set the modules' own numbers.
    """

    kept: Kept
    attributes: Attributes
    handlers: Sequence[LayerHandler]


@dataclass(frozen=True)
class OtherPath:
    """How the pass of a cut network differs from that of the whole one.

    Attributes:
        text: what happens, with the line of code if it is known.
        module: the path of the module in which it happens.
    """

    text: str
    module: str


@dataclass(frozen=True)
class TracedCall:
    """A call of a network, and its path before a cut.

    Attributes:
        call: example inputs, or a function that calls the network.
        path: the steps that it runs.
        backend: the kind of stand-ins on which it runs.
        types: parameter or buffer -> its type then. A network may be given another precision
            afterwards, in which it does not run on the same inputs.
    """

    call: Call
    path: Path
    backend: TensorBackend
    types: Mapping[str, torch.dtype]

    @classmethod
    def of(cls, call: Call, tape: Tape, stand_ins: StandIns) -> TracedCall:
        """Return the call of which a tape was recorded with stand-ins."""
        inputs = [tensor for _, tensor in tensors_in(tape.example_inputs)]
        walk = _Walk(stand_ins.modules, tape.parameters.values(), inputs)
        for operation in tape.operations:
            walk.take(operation.name, operation.module, operation.tensors, operation.outputs)
        types = {name: tensor.dtype for name, tensor in tape.parameters.items()}
        return cls(call, walk.path, tape.backend, types)

    def find_other_path(
        self, stand_ins: StandIns, cut: CutToTry, small: Callable[[int], CutToTry]
    ) -> OtherPath | None:
        """Return how a cut changes the path; None if it does not, or if that cannot be tried.

        Args:
            stand_ins: runs the network, which is not cut yet.
            cut: the cut.
            small: returns a cut of a number of units of each group. Steps that run ever less often
                with one and two units less, as in a loop over heads, may do so.
        """
        if self.backend.has_values:
            return None
        found = self._run(stand_ins, cut, self.path)
        # Values that a pass on real tensors got may not be those that other widths ask for.
        if found.fits(self.path) or isinstance(found.error, UnknownValueError):
            return None
        # Since the trace, hooks may have been added, or parts replaced.
        now = self._run(stand_ins, CutToTry({}, {}, ()))
        if now.error is not None:
            return None
        paths = [now.path, *(self._run(stand_ins, small(units)).path for units in (1, 2))]
        varying = {s for s in set().union(*paths) if len({path.get(s, 0) for path in paths}) == 3}
        expected = {**now.path, **dict.fromkeys(varying, math.inf)}
        return self._run(stand_ins, cut, expected).compare(expected)

    def _run(self, stand_ins: StandIns, cut: CutToTry, expected: Path | None = None) -> _Found:
        tensors = stand_ins.tensors
        whole = {name: self._stand_in(name, tensor) for name, tensor in tensors.items()}
        changed = {
            name: self._stand_in(name, _cut_tensor(tensors[name], sizes))
            for name, sizes in _by_tensor(cut.kept).items()
        }
        left = {**whole, **changed}
        inputs = map_tensors(self.call, self.backend.make)
        given = [tensor for _, tensor in tensors_in(inputs)]
        walk = _Walk(stand_ins.modules, left.values(), given)
        watcher = _PathWatcher(stand_ins, walk, expected)
        shapes = {name: tensor.shape for name, tensor in changed.items()}
        with stand_ins.with_tensors(whole, training=False):
            set_attributes(stand_ins.modules, cut.attributes)
            resize_layers(stand_ins.modules, stand_ins.by_layer(shapes), cut.handlers)
            stand_ins.swap(left)
            try:
                run_forward(stand_ins.model, inputs, self.backend, watcher)
            except Exception as error:
                return _Found(walk.path, error)
        return _Found(walk.path)

    def _stand_in(self, name: str, tensor: Tensor) -> Tensor:
        dtype = self.types.get(name, tensor.dtype)
        if dtype != tensor.dtype:
            known = is_known(tensor)
            tensor = tensor.to(dtype) if known else torch.empty_like(tensor, dtype=dtype)
        return self.backend.make(tensor)


@dataclass(frozen=True)
class _Found:
    """What a pass has shown.

    Attributes:
        path: the steps that it ran.
        error: why it ended early; None if it did not.
    """

    path: Path
    error: Exception | None = None

    def fits(self, expected: Path) -> bool:
        """Return whether the pass ran the expected steps."""
        return self.error is None and self.path == expected

    def compare(self, expected: Path) -> OtherPath | None:
        """Return the difference from the expected steps."""
        if isinstance(self.error, _SurplusError):
            return _other_path(self.error.step, 'runs', user_line(self.error.__traceback__))
        if self.error is not None:
            first = next(iter(str(self.error).strip().splitlines()), '')
            line = user_line(self.error.__traceback__)
            at = f' at {line}' if line else ''
            text = f'the forward pass fails: {type(self.error).__name__}: {first}{at}'
            return OtherPath(text, '')
        for step, times in expected.items():
            if self.path.get(step, 0) < times < math.inf:
                return _other_path(step, 'does not run')
        return None


def _other_path(step: Step, what: str, line: str = '') -> OtherPath:
    name, module = step
    where = f'in {module}' if module else 'in the model itself'
    at = f' at {line}' if line else ''
    text = f'the code takes another path, because it compares widths: {name} {where} {what}{at}'
    return OtherPath(text, module)


def check_path(
    calls: Sequence[TracedCall],
    model: nn.Module,
    cut: CutToTry,
    small: Callable[[int], CutToTry],
    groups: Mapping[str, ChannelGroup],
) -> None:
    """Check that code takes the same path with the widths that a cut leaves.

    Args:
        calls: the traced calls of the network, of which each is tried.
        model: the network, which is not cut yet.
        cut: the cut.
        small: returns a cut of a number of units of each group.
        groups: name -> group, for the message.

    Raises:
        MaskError: it takes another one.
    """
    if not calls or not cut.kept:
        return
    stand_ins = StandIns(model)
    for call in calls:
        other = call.find_other_path(stand_ins, cut, small)
        if other is not None:
            raise MaskError(
                f'with the widths that these masks leave, {other.text}; keep other numbers of units'
                f'{_name_groups(groups, cut, other.module)}: by other masks, or by another budget '
                'or other limits of the groups'
            )


def _name_groups(groups: Mapping[str, ChannelGroup], cut: CutToTry, module: str) -> str:
    """Return the groups that are cut in a module, for a message."""
    cut_names = {name for name, _ in cut.kept}
    near = [
        name
        for name, group in groups.items()
        if any(m.param in cut_names and m.param.startswith(f'{module}.') for m in group.members)
    ]
    listed = ', '.join(map(repr, near[:_MOST_NAMED]))
    more = len(near) - _MOST_NAMED
    return f' of {listed}{f" or {more} more groups" if more > 0 else ""}' if near and module else ''


def _by_tensor(kept: Kept) -> dict[str, dict[int, Tensor]]:
    """Return name of a tensor -> dimension -> the indices that stay."""
    cuts: dict[str, dict[int, Tensor]] = {}
    for (name, dim), index in kept.items():
        cuts.setdefault(name, {})[dim] = index
    return cuts


def _cut_tensor(tensor: Tensor, cuts: Mapping[int, Tensor]) -> Tensor:
    """Return what a cut leaves of a tensor, with its values if a pass may ask for them."""
    tensor = tensor.detach()
    if not is_known(tensor):
        sizes = [cuts[n].numel() if n in cuts else size for n, size in enumerate(tensor.shape)]
        return tensor.new_empty(sizes)
    for dim, index in cuts.items():
        tensor = tensor.index_select(dim, index.to(tensor.device))
    return tensor
