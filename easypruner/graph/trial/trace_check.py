"""The check of a trial: each operation must make tensors of the expected shapes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from easypruner.base.user_code import user_line
from easypruner.graph.coupling.rules.fills import TABLE, TABLES
from easypruner.graph.coupling.strided import keeps_dims
from easypruner.graph.recording.composites import run_parts
from easypruner.graph.recording.inventory import StandIns
from easypruner.graph.recording.kinds import kind_of
from easypruner.graph.recording.meta_shapes import tensors_of
from easypruner.graph.recording.tape import Operation, name_of
from easypruner.graph.recording.values import Watcher, is_reserve
from easypruner.graph.trial.expected import STEPS, ExpectedTrace
from easypruner.graph.trial.widths import Widths

_LOOKAHEAD = 64
_NUMBERS = (int, float)
_WITH_NUMBERS = frozenset({
    'addmm', 'baddbmm', 'addmv', 'addbmm', 'addr', 'full', 'full_like', 'new_full', 'fill',
    'scalar_tensor', 'masked_fill', 'constant_pad_nd',
})  # fmt: skip
"""Operations that are not entry by entry, and have numbers by which they multiply or fill."""
_WINDOWS = (torch.ops.aten.slice.Tensor,)
_VIEWS = ('view', '_unsafe_view', '_reshape_alias')
_REARRANGING = (
    *_VIEWS,
    'reshape',
    'permute',
    'transpose',
    'unsqueeze',
    'squeeze',
    'expand',
    'clone',
)


@dataclass(frozen=True)
class Failure:
    """Where a trial first differs from the expected trace.

    Attributes:
        position: the position of the operation in the expected trace.
        operation: the operation as it ran on the full model; None behind the last one.
        text: what happened, in a few words.
        line: the line of code outside torch at which it happened, or ''.
        round_number: the number of the round of the trial.
        earlier: the first expected operation that did not run, if the trial went on with others.
            The cause may be there.
        is_deviation: whether the operation ran, and made tensors of other shapes than expected.
        is_other_path: whether the code ran other steps than expected.
    """

    position: int
    operation: Operation | None
    text: str
    line: str
    round_number: int
    earlier: Operation | None
    is_deviation: bool
    is_other_path: bool = False

    @property
    def reason(self) -> str:
        """The reason for which the groups at fault are frozen, for a user to read.

        Code that counts channels to make a table, such as the numbers of the classes, gives each
        of them a value by its position. A shorter table would give others to those that stay.
        """
        if self.is_deviation and self.operation is not None and self.operation.name in TABLES:
            return f'{TABLE} has an entry for each channel: {self.operation}'
        where = f' at {self.line}' if self.line else ''
        return f'the forward pass does not follow a cut: {self.text}{where}: {self.operation}'


def progress_of(failure: Failure | None) -> float:
    """Return how far a trial got: the position of its failure; infinite if it passed."""
    return math.inf if failure is None else failure.position


class DeviationError(Exception):
    """A trial makes tensors of other shapes than expected."""


class OtherPathError(DeviationError):
    """A trial runs other steps than expected."""


class TraceCheck(Watcher):  # type: ignore[no-untyped-call]
    """Compares the operations of a trial with the expected ones, and raises where they differ.

    Args:
        expected: the expected trace.
        stand_ins: runs the model.
        widths: the widths of the axes in the trial.

    Attributes:
        widths: the widths of the axes in the trial.
        begun: how many operations have begun.
        renumbered: the operations that got another number than expected, with the logarithm of
            the ratio of both; NaN if there is none.
    """

    def __init__(self, expected: ExpectedTrace, stand_ins: StandIns, widths: Widths) -> None:
        super().__init__()
        self.begun = 0
        self._expected = expected
        self._operations = expected.operations
        self._coupling = expected.coupling
        # Shapes that depend on values are not known before: then the pass only has to run.
        self._knows_shapes = not expected.tape.backend.has_values
        self._stand_ins = stand_ins
        self.widths = widths
        self._position = 0
        self._missed: Operation | None = None
        self._extra: dict[int, Tensor] = {}
        self._steps: set[tuple[str, str]] = set()
        self.renumbered: dict[Operation, float] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        kind = kind_of(func)
        if kind.is_composite:
            return run_parts(self, func, args, kwargs)
        if is_reserve(func, args, kwargs):
            return self.run(func, args, kwargs)
        self.begun += 1
        if kind.name.removesuffix('_') in STEPS:
            self._steps.add((kind.name, self._stand_ins.path))
        result = self.run(func, args, kwargs)
        if kind.is_bookkeeping:
            if self._extra:
                self._is_extra(args, kwargs, tensors_of((result,)))
            return result
        operations = self._operations
        position, got = self._position, tensors_of((result,))
        if position < len(operations) and _are_alike(operations[position].func, func):
            # Where operations are missing, one may be taken for another of the same kind.
            uncertain = self._missed is not None
            fits = not uncertain or self._fits(operations[position].outputs, got)
            if not fits and (self._resume_behind(func, got) or self._is_extra(args, kwargs, got)):
                return result
            if operations[position] not in self._expected.unused:
                self._compare(operations[position].outputs, got, name_of(func) in _REARRANGING)
            self._compare_numbers(operations[position], func, args, kwargs)
            self._position += 1
        elif not self._resume_behind(func, got):
            self._is_extra(args, kwargs, got)
        return result

    def _compare_numbers(
        self, expected: Operation, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        if func in _WINDOWS:
            self._compare_window(expected, args)
        elif name_of(func) == 'as_strided':
            self._compare_strides(expected, args)
        elif self._missed is None:
            self._note_number(expected, func, args, kwargs)

    def _note_number(
        self, expected: Operation, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        """Note that an operation works with another number than expected."""
        name = name_of(func).removesuffix('_')
        if torch.Tag.pointwise not in func.tags and name not in _WITH_NUMBERS:
            return
        before = _numbers_in(expected.args, expected.kwargs)
        pairs = zip(before, _numbers_in(args, kwargs), strict=False)
        for number, got in pairs:
            if number != got and not (math.isnan(number) and math.isnan(got)):
                ratio = got / number if number else 0.0
                self.renumbered[expected] = math.log(ratio) if ratio > 0 else math.nan

    def _is_extra(self, args: Any, kwargs: Any, got: Sequence[Tensor]) -> bool:
        """Return whether an operation that is not expected works on nothing of the network.

        Its inputs are none, or made by such operations. So it is a part of code that makes a table
        anew, because a width is not that for which the table was made. An operation that combines
        the table with tensors of the network is compared.
        """
        found = all(id(tensor) in self._extra for tensor in tensors_of((*args, *kwargs.values())))
        if found:
            self._extra.update({id(tensor): tensor for tensor in got})
        return found

    def _resume_behind(self, func: Any, got: Sequence[Tensor]) -> bool:
        """Find the operation that ran among the next expected ones; return whether it is there.

        Else it is ignored. Two passes differ if the first one caches a tensor, or if tensors must
        be copied only in one memory layout. Whatever is ignored, the outputs of the model are
        compared in the end.
        """
        path = self._stand_ins.path
        if self._missed is None and self._position < len(self._operations):
            self._missed = self._operations[self._position]
        ahead = self._operations[self._position : self._position + _LOOKAHEAD]
        for position, operation in enumerate(ahead, start=self._position):
            same = _are_alike(operation.func, func) and operation.module == path
            if same and self._fits(operation.outputs, got):
                self._position = position + 1
                return True
        return False

    def _fits(self, expected: Sequence[Tensor], got: Sequence[Tensor]) -> bool:
        shapes = [tuple(tensor.shape) for tensor in got]
        return not self._knows_shapes or list(map(self._expected_shape, expected)) == shapes

    def _compare(
        self, expected: Sequence[Tensor], got: Sequence[Tensor], rearranged: bool = False
    ) -> None:
        """Raise if shapes differ, other than by dimensions of one index in rearranged tensors.

        ``torch.einsum`` puts a dimension that has one index left at another place. No entry moves
        by that, and an operation that computes something shows whether it is at the right one.
        """
        if not self._knows_shapes:
            return
        for before, after in zip(expected, got, strict=True):
            shape, found = self._expected_shape(before), tuple(after.shape)
            if shape != found and not (rearranged and _wide(shape) == _wide(found)):
                raise DeviationError(
                    f'expected a tensor of shape {shape}, got one of shape {found}'
                )

    def _compare_window(self, operation: Operation, args: tuple[Any, ...]) -> None:
        """Raise if the kept channels before a window are not those that were before it."""
        if not self._knows_shapes or len(operation.args) > 4:
            return
        if self._coupling.templates.has(operation):
            return
        axis = self._coupling.axes_of(operation.args[0])[operation.argument('dim')]
        first, last = slice(operation.argument('start'), None).indices(axis.size)[:2]
        expected = int(np.count_nonzero(self.widths.stays[axis.ids[:first]]))
        start = args[2] if len(args) > 2 else None
        begin = slice(start, None).indices(self.widths(axis))[0]
        if begin != expected and first < last:
            raise DeviationError(f'expected a window that starts at {expected}, got {begin}')

    def _compare_strides(self, operation: Operation, args: tuple[Any, ...]) -> None:
        """Raise if a view by strides no longer follows the channels that it followed before."""
        axes = self._coupling.axes_of(operation.args[0])
        if self._knows_shapes and not keeps_dims(axes, operation.args, args):
            raise DeviationError('expected strides that follow the width')

    def _expected_shape(self, tensor: Tensor) -> tuple[int, ...]:
        return tuple([self.widths(axis) for axis in self._coupling.axes_of(tensor)])

    def compare_outputs(self, expected: Sequence[Tensor], got: Sequence[Tensor]) -> None:
        """Raise unless the model's outputs have the expected shapes."""
        self._compare_steps()
        self._position = len(self._operations)
        if len(expected) != len(got):
            raise DeviationError(f'expected {len(expected)} outputs, got {len(got)}')
        self._compare(expected, got)

    def _compare_steps(self) -> None:
        """Raise if a module ran a step that it should not run, or did not run one.

        So does code that asks for a width: ``relu(x) if x.shape[1] > 8 else x``.
        """
        if not self._knows_shapes:
            return
        steps = self._expected.steps
        for name, path in sorted(steps.keys() ^ self._steps):
            is_lost = (name, path) in steps
            first = steps[name, path] if is_lost else self._expected.within.get(path, [None])[0]
            self._position = (
                len(self._operations) if first is None else self._operations.index(first)
            )
            raise OtherPathError(
                f'{name} {"does not run" if is_lost else "runs"}, so the code takes another path'
            )

    def describe(self, error: Exception) -> Failure:
        """Return the failure of a trial that raised an error."""
        text = next(iter(str(error).strip().splitlines()), '')
        is_deviation = isinstance(error, DeviationError)
        if not is_deviation:
            text = f'{type(error).__name__}: {text}'
        return Failure(
            position=self._position,
            operation=next(iter(self._operations[self._position :]), None),
            text=text,
            line=user_line(error.__traceback__),
            round_number=self.widths.round_number,
            earlier=self._missed,
            is_deviation=is_deviation,
            is_other_path=isinstance(error, OtherPathError),
        )


def _numbers_in(args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[float]:
    """Return the numbers among arguments, and those of tensors that hold a single known one."""
    return [
        float(value)
        for value in (*args, *(kwargs[name] for name in sorted(kwargs)))
        if type(value) in _NUMBERS or (type(value) is Tensor and _is_known_number(value))
    ]


def _is_known_number(tensor: Tensor) -> bool:
    return not tensor.is_meta and tensor.numel() == 1 and not tensor.is_complex()


def _are_alike(func: Any, other: Any) -> bool:
    """Return whether two operations are the same, or both views, one of them of a copy."""
    return func is other or (name_of(func) in _VIEWS and name_of(other) in _VIEWS)


def _wide(shape: Sequence[int]) -> list[int]:
    """Return the sizes of a shape other than 1."""
    return [size for size in shape if size != 1]
