"""Penalties that compete with the loss, on losses of which the minimum is known."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from easypruner_plugins.global_sparsity import GlobalSparsity
from easypruner_plugins.polarization import Polarization
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop

from easypruner import Progress, Regularizer
from easypruner.strategies import Schedule
from easypruner.strategies.regularizers.response import response_of
from easypruner.testing.networks import Plain
from tests.helpers.pushes import Case, make_case

UPDATES, RATE, STRENGTH = 600, 0.02, 0.5
CURVES = (0.05, 0.2, 0.4, 0.8, 2.0, 5.0)
"""Second derivatives of the loss; below the strength, the loss gives way to it."""
OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    'SGD': lambda p: SGD(p, lr=RATE, momentum=0.9),
    'Adam': lambda p: Adam(p, lr=RATE),
    'AdamW': lambda p: AdamW(p, lr=RATE, weight_decay=0.0),
    'RMSprop': lambda p: RMSprop(p, lr=RATE),
}


def trained(case: Case, regularizer: Regularizer, make: Callable[..., Optimizer]) -> Tensor:
    """Train all scales on the sum of curve / 2 * (scale - 1)^2, at falling rates; return them."""
    scales = [module.weight for module in case.scales().values()]
    with torch.no_grad():
        for scale in scales:
            scale.fill_(1.0)
    optimizer = make(scales)
    group = optimizer.param_groups[0]
    momentum = group.get('momentum', 0.0) if isinstance(optimizer, SGD) else 0.0
    response = response_of(optimizer, group, 1)
    schedule = Schedule(RATE * UPDATES / 2, momentum, UPDATES, response=response)
    regularizer.schedule(schedule)
    curves = [curves_of(scale) for scale in scales]
    for update in range(UPDATES):
        group['lr'] = RATE * (1 - update / UPDATES)
        for scale, curve in zip(scales, curves, strict=True):
            scale.grad = (curve * (scale - 1)).detach()
        progress = Progress(update, UPDATES, None, group['lr'], optimizer, momentum)
        regularizer.before_step(case.graph, None, progress)
        optimizer.step()
        regularizer.after_step(case.graph, None, progress)
    return torch.cat([scale.detach() for scale in scales])


def curves_of(scale: Tensor) -> Tensor:
    return torch.tensor(CURVES, dtype=scale.dtype).repeat(len(scale))[: len(scale)]


@pytest.mark.parametrize('name', OPTIMIZERS)
def test_the_loss_decides_which_scales_stay(name: str) -> None:
    """argmin c (g - 1)^2 / 2 + lambda |g| is max(1 - lambda / c, 0)."""
    case = make_case(Plain)
    found = trained(case, GlobalSparsity(STRENGTH), OPTIMIZERS[name])
    curves = torch.cat([curves_of(module.weight) for module in case.scales().values()])
    minimum = (1 - STRENGTH / curves).clamp(min=0)
    assert {float(value) > 0 for value in minimum} == {True, False}
    torch.testing.assert_close(found, minimum, rtol=0, atol=0.02)


@pytest.mark.parametrize('name', OPTIMIZERS)
def test_polarization_separates_the_scales_that_the_loss_holds(name: str) -> None:
    case = make_case(Plain)
    found = trained(case, Polarization(STRENGTH, t=1.2, bound=1.2), OPTIMIZERS[name])
    curves = torch.cat([curves_of(module.weight) for module in case.scales().values()])
    # The weakest curve cannot resist t * lambda, and the strongest does.
    assert float(found[curves == min(CURVES)].abs().max()) < 0.05
    assert float(found[curves == max(CURVES)].min()) > 0.8
    ordered = found.sort().values
    assert float(ordered.diff().max()) > 0.4
