"""Proof: the cut is tried on the meta device, and every tensor's shape must be the predicted one.

Numbers that Python code holds (``view(-1, 56, 56, 32)``, ``self.num_heads``) are not on a tape.
So the model's own forward runs again with every group cut to another width. Where an operation
fails or makes another shape than the index arrays say, the module's own integers are mended or
the group stays, with the failing line as the reason.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from easypruner.base.nested import tensors_in
from easypruner.graph.coupling.axes import Axis
from easypruner.graph.coupling.coupling import Coupling
from easypruner.graph.coupling.groups import Partition, partition
from easypruner.graph.coupling.propagate import Propagation
from easypruner.graph.cutting.handlers import resize_layers
from easypruner.graph.cutting.layer_handler import LayerHandler
from easypruner.graph.recording import meta_shapes as shapes
from easypruner.graph.recording.attributes import Attributes, set_attributes
from easypruner.graph.recording.stand_ins import Rehearsal
from easypruner.graph.recording.tape import Operation, Tape, name_of, run_forward
from easypruner.graph.trial.expected import BOOKKEEPING, Script

_SEED = 20220117
_LOOKAHEAD = 64
_TURNS_OF_WINDOWS = 8
_TURNS_OF_LEAST = 4
_FEW_UNITS = 256
_NEAR = 6
_WINDOWS = (torch.ops.aten.slice.Tensor,)
_OWN_CODE = str(Path(__file__).parents[1])
_TORCH_CODE = str(Path(torch.__file__).parent)


@dataclass(frozen=True)
class Failure:
    """Where a trial run first left the path that was predicted.

    Attributes:
        position: of the operation on the tape.
        operation: as it ran on the full model; None behind the last one.
        text: what happened, in a few words.
        line: the line of code outside torch at which it happened, or ''.
        turn: of the widths under which it happened.
        earlier: the first operation on the tape that did not come about, if others did in its
            place; what failed may have gone wrong there.
    """

    position: int
    operation: Operation | None
    text: str
    line: str
    turn: int
    earlier: Operation | None

    @property
    def reason(self) -> str:
        """Why the groups at fault stay, for a user to read."""
        where = f' at {self.line}' if self.line else ''
        return f'the forward pass does not follow a cut: {self.text}{where}: {self.operation}'


def _least(size: int) -> int:
    """Return the smallest number of units that a group keeps in a trial.

    Where one of several is left, torch works differently: a copy need not be made.
    """
    return 1 if size == 2 else max(2, -(-2 * size // 5))


def _choice(numbers: npt.NDArray[np.int64], choices: int, turn: int) -> npt.NDArray[np.int64]:
    """Return which of so many choices each number takes in a turn.

    Neighbours differ in every turn. Any two numbers below ``choices ** turns`` differ in one of
    the turns: in the first by their last digit to that base, in the others by a further one.
    """
    digit = numbers // min(choices**turn, 2**62) if turn else 0
    return (numbers + digit) % choices


class Widths:
    """Kept sizes of axes under a choice of units."""

    def __init__(
        self,
        coupling: Coupling,
        parts: Partition,
        kept_units: npt.NDArray[np.bool_],
        turn: int = 0,
    ) -> None:
        axes = coupling.axes
        stays = np.ones(axes.nodes + len(axes.reasons.texts) + 1, dtype=bool)
        free = parts.unit_of >= 0
        # Reasons are negative ids: they count from the end, and stay.
        stays[: parts.unit_of.size][free] = kept_units[parts.unit_of[free]]
        self.stays = stays
        self.turn = turn
        self._sizes: dict[Axis, int] = {}

    def __call__(self, axis: Axis) -> int:
        """Return how many indices of an axis stay."""
        size = self._sizes.get(axis)
        if size is None:
            size = self._sizes[axis] = int(np.count_nonzero(self.stays[axis.ids]))
        return size


@dataclass(frozen=True)
class Trial:
    """What a trial run needs to know of a traced model.

    Attributes:
        rehearsal: of the model that was traced.
        tape: of its evaluation pass.
        propagation: what is coupled on the tape, and how its nodes fall into groups.
        handlers: keep the modules' own numbers true.
    """

    rehearsal: Rehearsal
    tape: Tape
    propagation: Propagation
    handlers: Sequence[LayerHandler]

    @property
    def model(self) -> nn.Module:
        """The model that was traced."""
        return self.rehearsal.model

    @property
    def operations(self) -> list[Operation]:
        """The tape's operations without those that come and go."""
        return self.script.operations

    @cached_property
    def script(self) -> Script:
        """What the forward pass is expected to do."""
        return Script(self.rehearsal.modules, self.tape, self.coupling)

    @property
    def coupling(self) -> Coupling:
        """What is coupled on the tape."""
        return self.propagation.coupling

    @property
    def parts(self) -> Partition:
        """How the nodes fall into groups."""
        return self.propagation.parts

    @property
    def compares(self) -> bool:
        """Whether shapes are compared with the predicted ones.

        Else, where they depend on values, all that counts is that the forward gets through.
        """
        return not self.tape.world.depends_on_values

    def regrouped(self) -> Trial:
        """Return the trial of the groups that the coupling makes by now."""
        found = self.propagation
        parts = partition(found.coupling, found.owned, found.counted)
        other = replace(self, propagation=replace(found, parts=parts))
        other.__dict__['script'] = self.script
        return other

    def counts(self, turn: int = 0) -> npt.NDArray[np.int64]:
        """Return how many units each group keeps in a trial: from two fifths to all but one.

        Groups of one size keep different numbers as far as there are enough, and other numbers in
        another turn: what holds only where two widths happen to be equal is to fail. Where there
        is but one number, some groups stay whole in all turns but the first.
        """
        sizes = self.parts.sizes
        counts = np.ones_like(sizes)
        for size in np.unique(sizes[sizes > 1]).tolist():
            random = np.random.default_rng((_SEED, size, turn))
            choices, step = np.arange(_least(size), size), turn
            if choices.size == 1 and turn:
                choices, step = np.append(choices, size), turn - 1
            choices = random.permutation(choices)
            alike = np.flatnonzero(sizes == size)
            counts[alike] = choices[_choice(np.arange(alike.size), choices.size, step)]
        return counts

    def turns(self) -> range:
        """Return the turns in which a cut is tried: more where one may succeed by chance.

        That is where widths are small, where groups of one size that are near each other keep
        equal numbers, and where windows are cut out whose bounds may be worked out from a width,
        as ``channels // 2``.
        """
        if any(self.groups_of(axis) for axis in self.script.windowed):
            return range(_TURNS_OF_WINDOWS)
        sizes, alike = np.unique(self.parts.sizes[self.parts.sizes > 1], return_counts=True)
        choices = np.array([size - _least(size) for size in sizes.tolist()], dtype=np.int64)
        if bool(((choices == 1) & (alike > 1)).any()):
            return range(_TURNS_OF_LEAST)
        by_chance = bool((choices < np.minimum(alike, _NEAR)).any())
        return range(3 if by_chance or self.parts.sizes.sum() < _FEW_UNITS else 1)

    def widths(self, groups: Iterable[int] | None = None, turn: int = 0) -> Widths:
        """Return the widths of a trial in which ``groups`` (all by default) are cut.

        Which units go is random.
        """
        group_of = self.parts.group_of
        random = np.random.default_rng((_SEED, turn)).random(group_of.size)
        # Units are numbered group by group.
        order = np.argsort(group_of + random)
        starts = np.cumsum(self.parts.sizes) - self.parts.sizes
        kept = np.empty(group_of.size, dtype=bool)
        kept[order] = np.arange(order.size) - starts[group_of] < self.counts(turn)[group_of]
        if groups is not None:
            kept |= ~np.isin(group_of, list(groups))
        return Widths(self.coupling, self.parts, kept, turn)

    def run(self, widths: Widths, attributes: Attributes) -> Failure | None:
        """Run the forward on cut stand-ins; None where every shape is as predicted.

        Args:
            widths: what is kept.
            attributes: plain attributes of modules to set for the run.
        """
        parameters = self._cut_parameters(widths)
        changed = {
            name: tensor.shape
            for name, tensor in parameters.items()
            if tensor is not self.tape.parameters[name]
        }
        check = _Check(self, widths)
        expected = [tensor for _, tensor in self.tape.outputs]
        with self.rehearsal.with_tensors(self.tape.parameters, training=False):
            try:
                modules = self.rehearsal.modules
                set_attributes(modules, attributes)
                resize_layers(modules, self.rehearsal.by_layer(changed), self.handlers)
                self.rehearsal.swap(parameters)
                output = run_forward(self.model, self.tape.example_inputs, self.tape.world, check)
                check.compare_outputs(expected, [tensor for _, tensor in tensors_in(output)])
            except Exception as error:
                return check.failure(error)
        return None

    def _cut_parameters(self, widths: Widths) -> dict[str, Tensor]:
        parameters = {}
        for name, tensor in self.tape.parameters.items():
            cut = tensor
            for dim, axis in enumerate(self.coupling.axes.of_parameter(name) or ()):
                if widths(axis) == axis.size:
                    continue
                if self.tape.world.depends_on_values:
                    kept = torch.from_numpy(np.flatnonzero(widths.stays[axis.ids]))
                    cut = cut.index_select(dim, kept.to(cut.device))
                else:
                    shape = list(cut.shape)
                    shape[dim] = widths(axis)
                    cut = torch.empty(shape, dtype=cut.dtype, device=cut.device)
            parameters[name] = cut
        return parameters

    def at_fault(self, failure: Failure, attributes: Callable[[Widths], Attributes]) -> set[int]:
        """Return the groups to blame for a failure, by bisection."""
        suspects = self.involved(failure) or set(range(len(self.parts.sizes)))
        return self._bisect(sorted(suspects), attributes, failure.turn) or suspects

    def _bisect(
        self, groups: Sequence[int], attributes: Callable[[Widths], Attributes], turn: int
    ) -> set[int]:
        """Return the groups that fail on their own, or all where only together they do."""
        widths = self.widths(groups, turn)
        if not groups or self.run(widths, attributes(widths)) is None:
            return set()
        if len(groups) == 1:
            return set(groups)
        middle = len(groups) // 2
        parts = [
            self._bisect(half, attributes, turn) for half in (groups[:middle], groups[middle:])
        ]
        return parts[0] | parts[1] or set(groups)

    def involved(self, failure: Failure) -> set[int]:
        """Return the groups that have channels in the failing operation."""
        return {group for axis in self.axes_at(failure) for group in self.groups_of(axis)}

    def axes_at(self, failure: Failure) -> list[Axis]:
        """Return the axes of the failing operation that groups decide: outputs first."""
        if failure.operation is None:
            return []
        axes = dict.fromkeys(self.script.axes_of(failure.operation))
        return [axis for axis in axes if self.groups_of(axis)]

    def groups_of(self, axis: Axis) -> set[int]:
        """Return the groups that have channels in an axis."""
        return set(self.parts.groups_of(axis))


class _DeviationError(Exception):
    """A tensor of another shape than predicted."""


class _Check(shapes.Watcher):  # type: ignore[no-untyped-call]
    """Compares each operation with the one on the tape.

    Args:
        trial: what is known of the model.
        widths: what is kept.
    """

    def __init__(self, trial: Trial, widths: Widths) -> None:
        super().__init__()
        self._operations = trial.operations
        self._coupling = trial.coupling
        self._rehearsal = trial.rehearsal
        self._compares = trial.compares
        self._widths = widths
        self._position = 0
        self._missed: Operation | None = None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = shapes.run(func, args, kwargs or {})
        if name_of(func) in BOOKKEEPING:
            return result
        operations = self._operations
        position, met = self._position, shapes.tensors_of(result)
        if position < len(operations) and operations[position].func is func:
            self._compare(operations[position].outputs, met)
            if func in _WINDOWS:
                self._compare_window(operations[position], args)
            self._position += 1
        else:
            self._find_again(func, met)
        return result

    def _find_again(self, func: Any, met: Sequence[Tensor]) -> None:
        """Go on at the module's next operation that is like this one; if none is, pass it over.

        What is cached in the first pass, or copied only where memory is laid out one way, makes
        two passes differ. Whatever is passed over, the outputs are compared in the end.
        """
        path = self._rehearsal.path
        if self._missed is None and self._position < len(self._operations):
            self._missed = self._operations[self._position]
        ahead = range(self._position, min(self._position + _LOOKAHEAD, len(self._operations)))
        for position in ahead:
            operation = self._operations[position]
            same = operation.func is func and operation.module == path
            if same and self._fits(operation.outputs, met):
                self._position = position + 1
                return

    def _fits(self, expected: Sequence[Tensor], met: Sequence[Tensor]) -> bool:
        if not self._compares:
            return True
        shapes_met = [tuple(tensor.shape) for tensor in met]
        return [self._predicted(tensor) for tensor in expected] == shapes_met

    def _compare(self, expected: Sequence[Tensor], met: Sequence[Tensor]) -> None:
        if not self._compares:
            return
        for before, after in zip(expected, met, strict=True):
            predicted = self._predicted(before)
            if predicted != tuple(after.shape):
                raise _DeviationError(f'a tensor of shape {predicted} was expected, '
                                 f'{tuple(after.shape)} is made')  # fmt: skip

    def _compare_window(self, operation: Operation, args: tuple[Any, ...]) -> None:
        """Raise unless a window starts behind just those channels that it started behind."""
        if not self._compares or len(operation.args) > 4:
            return
        dim, start = _window(operation.args)
        met = _window(args)[1]
        axis = self._coupling.axes_of(operation.args[0])[dim]
        first, last = slice(start, None).indices(axis.size)[:2]
        predicted = int(np.count_nonzero(self._widths.stays[axis.ids[:first]]))
        begins = slice(met, None).indices(self._widths(axis))[0]
        if begins != predicted and first < last:
            raise _DeviationError(
                f'a window that starts at {predicted} was expected, it starts at {begins}'
            )

    def _predicted(self, tensor: Tensor) -> tuple[int, ...]:
        return tuple([self._widths(axis) for axis in self._coupling.axes_of(tensor)])

    def compare_outputs(self, expected: Sequence[Tensor], met: Sequence[Tensor]) -> None:
        """Raise unless the model's outputs are of the shapes they had."""
        self._position = len(self._operations)
        if len(expected) != len(met):
            raise _DeviationError(f'{len(met)} outputs are made instead of {len(expected)}')
        self._compare(expected, met)

    def failure(self, error: Exception) -> Failure:
        text = str(error).strip().splitlines()[0] if str(error).strip() else ''
        if not isinstance(error, _DeviationError):
            text = f'{type(error).__name__}: {text}'
        known = self._position < len(self._operations)
        operation = self._operations[self._position] if known else None
        line = _user_line(error.__traceback__)
        return Failure(self._position, operation, text, line, self._widths.turn, self._missed)


def _window(args: tuple[Any, ...]) -> tuple[int, int | None]:
    """Return the dimension and the start of a slice."""
    return args[1] if len(args) > 1 else 0, args[2] if len(args) > 2 else None


def _user_line(trace: TracebackType | None) -> str:
    """Return file:line and text of the innermost frame outside torch and this package."""
    for frame in reversed(traceback.extract_tb(trace)):
        if not frame.filename.startswith((_OWN_CODE, _TORCH_CODE)):
            return f'{Path(frame.filename).name}:{frame.lineno}, {frame.line!r}'
    return ''
