"""The path of a forward pass: the steps that its code runs.

It may depend on widths, as in ``x + y if x.shape == y.shape else y`` or in a loop. Trials try some
widths only. So before a cut, its own widths are tried.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from easypruner.base.nested import map_tensors, tensors_in
from easypruner.base.user_code import user_line
from easypruner.errors import MaskError
from easypruner.graph.coupling.groups import ChannelGroup
from easypruner.graph.cutting.handlers import LayerHandler, resize_layers
from easypruner.graph.cutting.surgery import Kept
from easypruner.graph.recording.backends import TensorBackend
from easypruner.graph.recording.inventory import Attributes, StandIns, set_attributes
from easypruner.graph.recording.kinds import kind_of
from easypruner.graph.recording.tape import Call, Tape, run_forward
from easypruner.graph.recording.values import UnknownValueError, is_known
from easypruner.graph.trial.steps import Path, PathWatcher, Step, SurplusError, Walk

_MOST_NAMED = 4
_MOST_TRIES = 40
_OTHER_PATH = 'the code takes another path, because it depends on widths'


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
        walk = Walk(stand_ins.modules, tape.parameters.values(), inputs)
        for operation in tape.operations:
            walk.take(
                kind_of(operation.func), operation.module, operation.tensors, operation.outputs
            )
        types = {name: tensor.dtype for name, tensor in tape.parameters.items()}
        return cls(call, walk.path, tape.backend, types)

    def find_other_path(
        self, stand_ins: StandIns, cut: CutToTry, expected: Callable[[], Path | None]
    ) -> str:
        """Return how a cut changes the path; '' if it does not, or if that cannot be tried.

        Args:
            stand_ins: runs the network, which is not cut yet.
            cut: the cut.
            expected: returns :meth:`expect`, which is needed if the path is not quite the traced
                one.

        Returns:
            what happens, with the line of code if it is known.
        """
        if self.backend.has_values:
            return ''
        found = self._run(stand_ins, cut, self.path)
        # Values that a pass on real tensors got may not be those that other widths ask for.
        if found.fits(self.path) or isinstance(found.error, UnknownValueError):
            return ''
        path = expected()
        return '' if path is None else self._run(stand_ins, cut, path).compare(path)

    def expect(self, stand_ins: StandIns, small: Callable[[int], CutToTry]) -> Path | None:
        """Return how often each step may run; None if the network does not run.

        Since the trace, hooks may have been added, or parts replaced.

        Args:
            stand_ins: runs the network, which is not cut yet.
            small: returns a cut of a number of units of each group. Steps that run ever less often
                with one and two units less, as in a loop over heads, may do so.
        """
        now = self._run(stand_ins, CutToTry({}, {}, ()))
        if now.error is not None:
            return None
        paths = [now.path, *(self._run(stand_ins, small(units)).path for units in (1, 2))]
        varying = {s for s in set().union(*paths) if len({path.get(s, 0) for path in paths}) == 3}
        return {**now.path, **dict.fromkeys(varying, math.inf)}

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
        walk = Walk(stand_ins.modules, left.values(), given)
        watcher = PathWatcher(stand_ins, walk, expected)
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

    def compare(self, expected: Path) -> str:
        """Return the difference from the expected steps; '' if there is none."""
        error = self.error
        line = '' if error is None else user_line(error.__traceback__)
        at = f' at {line}' if line else ''
        if isinstance(error, SurplusError):
            more = f' more often than {_times(error.times)}' if error.times else ''
            return f'{_OTHER_PATH}: {_in_words(error.step)} runs{more}{at}'
        if error is not None:
            first = next(iter(str(error).strip().splitlines()), '')
            return f'the forward pass fails: {type(error).__name__}: {first}{at}'
        for step, times in expected.items():
            found = self.path.get(step, 0)
            if found < times < math.inf:
                less = f'runs {_times(found)}, not {_times(times)}' if found else 'does not run'
                return f'{_OTHER_PATH}: {_in_words(step)} {less}'
        return ''


def _in_words(step: Step) -> str:
    name, module = step
    return f'{name} in {module or "the model itself"}'


def _times(number: float) -> str:
    return 'once' if number == 1 else f'{number:g} times'


def check_path(
    calls: Sequence[TracedCall],
    model: nn.Module,
    masks: Mapping[str, Tensor],
    cut_of: Callable[[Mapping[str, Tensor]], CutToTry],
    groups: Mapping[str, ChannelGroup],
) -> None:
    """Check that code takes the same path with the widths that masks leave.

    Args:
        calls: the traced calls of the network, of which each is tried.
        model: the network, which is not cut yet.
        masks: group -> bool tensor, True = keep.
        cut_of: returns the cut by masks.
        groups: name -> group.

    Raises:
        MaskError: it takes another one.
    """
    cutting = [name for name, mask in masks.items() if not mask.all()]
    if not calls or not cutting:
        return
    stand_ins = StandIns(model)

    def small(units: int) -> CutToTry:
        sizes = {name: group.size for name, group in groups.items() if group.size > units}
        return cut_of({name: torch.arange(size) >= units for name, size in sizes.items()})

    for call in calls:
        expected = functools.cache(functools.partial(call.expect, stand_ins, small))

        def find(
            names: Iterable[str],
            call: TracedCall = call,
            expected: Callable[[], Path | None] = expected,
        ) -> str:
            cut = cut_of({name: masks[name] for name in names})
            return call.find_other_path(stand_ins, cut, expected)

        text = find(cutting)
        if text:
            raise MaskError(
                f'with the widths that these masks leave, {text}; keep other numbers of units of '
                f'{_listed(_find_at_fault(find, cutting))}: by other masks, or by another budget '
                'or other limits of the groups'
            )


def _find_at_fault(changes: Callable[[Sequence[str]], object], names: Sequence[str]) -> list[str]:
    """Return names of a few groups of which a cut changes the path.

    Groups are left out, ever fewer at once, as long as the rest still changes it.

    Args:
        changes: whether a cut of some groups changes the path.
        names: the names of all groups that are cut.
    """
    found, tries = list(names), 0
    size = len(found) // 2
    while size:
        start = 0
        while start < len(found) and tries < _MOST_TRIES:
            rest = found[:start] + found[start + size :]
            tries += 1
            if rest and changes(rest):
                found = rest
            else:
                start += size
        size //= 2
    return found


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _MOST_NAMED
    listed = ', '.join(map(repr, names[:_MOST_NAMED]))
    return f'{listed} or {more} more groups' if more > 0 else listed


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
