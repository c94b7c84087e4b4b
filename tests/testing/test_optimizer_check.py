"""The check of optimizer handlers accepts good handlers and reports the errors of bad ones."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from easypruner import OptimizerHandler
from easypruner.errors import CutError
from easypruner.graph.cutting.optimizer_handler import ParameterCut, along, elementwise
from easypruner.testing import check_optimizer_handler


class Rows(torch.optim.Optimizer):
    """Divides a momentum by a statistic of rows."""

    def __init__(self, parameters: Any) -> None:
        super().__init__(parameters, {'lr': 0.01})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        for parameter in self.param_groups[0]['params']:
            gradient, state = parameter.grad, self.state[parameter]
            rows = gradient.flatten(1) if gradient.dim() > 1 else gradient[:, None]
            state.setdefault('momentum', torch.zeros_like(gradient)).lerp_(gradient, 0.3)
            state.setdefault('mean', torch.ones(len(rows))).lerp_(rows.abs().mean(1), 0.3)
            scale = state['mean'].view(-1, *[1] * (gradient.dim() - 1))
            parameter.sub_(state['momentum'] / scale, alpha=self.param_groups[0]['lr'])


class Good(OptimizerHandler):
    handles = (Rows,)
    layout: ClassVar = {'momentum': elementwise, 'mean': along(lambda count: [0])}


def first_ones(cut: ParameterCut, value: Tensor) -> Tensor:
    return value[: cut.new_shape[0]].clone()


class WrongChannels(Good):
    layout: ClassVar = {'momentum': elementwise, 'mean': first_ones}


class Incomplete(Good):
    layout: ClassVar = {'momentum': elementwise}


def make(model: nn.Module) -> Rows:
    return Rows(model.parameters())


def test_a_good_handler_passes() -> None:
    check_optimizer_handler(Good(), make)
    check_optimizer_handler([Good()], make, updates=1)


def test_a_handler_that_keeps_other_numbers_is_found() -> None:
    with pytest.raises(AssertionError, match='is not updated as in a network made by hand'):
        check_optimizer_handler(WrongChannels(), make)


def test_a_missing_entry_is_found() -> None:
    with pytest.raises(CutError, match=r"Rows of tests keeps 'mean' of shape \(7,\)"):
        check_optimizer_handler(Incomplete(), make)


def test_a_check_without_an_update_is_found() -> None:
    with pytest.raises(AssertionError, match='no weight changes'):
        check_optimizer_handler(Good(), make, update=lambda model, optimizer: None)
