"""Asked values: what code asks for in a pass on real tensors, to be given again on meta tensors.

A pass may ask for values that depend on weights, such as whether an activation is finite, or which
boxes are above a threshold. Their shapes, and the path that the code takes, are then known only
after a pass on real tensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from easypruner.base.nested import map_tensors
from easypruner.graph.recording.kinds import kind_of
from easypruner.graph.recording.meta_shapes import run_operation
from easypruner.graph.recording.values import UnknownValueError, is_mask

aten = torch.ops.aten


@dataclass(frozen=True)
class Answer:
    """What code got when it asked for values.

    Attributes:
        func: the operation that it ran.
        result: the result; tensors in it are meta tensors.
    """

    func: Any
    result: Any


class AskedValues:
    """Runs operations on real tensors, and notes what code asks for.

    Attributes:
        answers: what it got, in order.
    """

    def __init__(self) -> None:
        self.answers: list[Answer] = []

    def run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run an operation."""
        if func is aten.index.Tensor:
            for mask in filter(is_mask, args[1]):
                self._note(aten.nonzero.default, mask.nonzero())
        result = run_operation(func, args, kwargs)
        if kind_of(func).asks_values:
            self._note(func, result)
        return result

    def _note(self, func: Any, result: Any) -> None:
        self.answers.append(Answer(func, map_tensors(result, _without_values)))


def give_again(
    answers: Sequence[Answer], func: Any, args: tuple[Any, ...], number: int | None
) -> Any:
    """Return what an operation returned in a pass before.

    Args:
        answers: what that pass got.
        func: the operation.
        args: its arguments.
        number: how often code asked for values before; None if this is not counted.

    Raises:
        UnknownValueError: that pass did not ask for this.
    """
    if number is None or number >= len(answers) or answers[number].func is not func:
        raise UnknownValueError(f'{func.name()} needs values that depend on weights')
    return map_tensors(answers[number].result, _without_values)


def _without_values(tensor: Tensor) -> Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, device='meta')
