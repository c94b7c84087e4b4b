"""The pull of the loss: the strength at which a parameter stays where it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.optim import SGD, AdamW, Optimizer

from easypruner import Progress
from easypruner.strategies.regularizers.pull import PullMeter
from easypruner.strategies.regularizers.selected import SelectedScales

LR, MOMENTUM = 0.01, 0.9
UPDATES = 400

Make = Callable[[list[Tensor]], Optimizer]
SGDS: dict[str, Make] = {
    'SGD': lambda p: SGD(p, lr=LR),
    'momentum': lambda p: SGD(p, lr=LR, momentum=MOMENTUM),
    'Nesterov': lambda p: SGD(p, lr=LR, momentum=MOMENTUM, nesterov=True),
}


def selected(values: list[float], weights: list[float] | None = None) -> SelectedScales:
    parameter = torch.nn.Parameter(torch.tensor(values))
    return SelectedScales(['norm.weight'], [parameter], [torch.tensor(weights or [1.0])])


def slopes_of(row: list[float]) -> Iterator[Tensor]:
    """Yield the same gradients at each update."""
    while True:
        yield torch.tensor(row)


def train(
    entries: SelectedScales, optimizer: Optimizer, slopes: Iterator[Tensor],
    strength: float = 0.0, form: str = 'gradient', meter: PullMeter | None = None,
) -> PullMeter:  # fmt: skip
    """Train a loss with these slopes, and push in one of the forms; return what was measured."""
    meter = meter or PullMeter()
    (parameter,), (weight,) = entries.tensors, entries.weights
    momentum = optimizer.param_groups[0].get('momentum', 0.0)
    adaptive = isinstance(optimizer, AdamW)
    for update in range(UPDATES):
        progress = Progress(update, UPDATES, lr=LR, optimizer=optimizer, momentum=momentum)
        parameter.grad = next(slopes).clone()
        due = meter.is_due(update, UPDATES)
        if due:
            meter.before(entries, adaptive, progress)
        if form == 'gradient':
            parameter.grad += strength * weight * parameter.detach().sign()
        optimizer.step()
        if due:
            meter.after(entries, adaptive, progress)
        if form == 'proximal':
            with torch.no_grad():
                most = LR * strength / (1 - momentum) * weight
                parameter.copy_(parameter.sign() * (parameter.abs() - most).clamp(min=0))
    return meter


@pytest.mark.parametrize('name', list(SGDS))
@pytest.mark.parametrize('form', ['gradient', 'proximal'])
def test_under_sgd_it_is_the_gradient_that_leads_away_from_zero(name: str, form: str) -> None:
    # The second entry is pulled towards zero, the third away from it: its slope and sign differ.
    entries = selected([99.0, 99.0, -99.0])
    make = SGDS[name]
    found = train(entries, make(entries.tensors), slopes_of([-0.01, 0.3, 0.2]), 0.05, form).found
    assert [measured.pull for measured in found] == pytest.approx([0.2] * 4, rel=1e-4)


@pytest.mark.in_ci
@given(st.floats(0.01, 1.0), st.floats(0.5, 2.0))
def test_above_it_an_entry_comes_to_zero_and_below_it_does_not(slope: float, weight: float) -> None:
    def end(share: float) -> float:
        entries = selected([0.001], [weight])
        strength = share * slope / weight
        optimizer = SGD(entries.tensors, lr=LR)
        meter = train(entries, optimizer, slopes_of([-slope]), strength, 'proximal')
        if entries.tensors[0].any():
            # The measurement takes the factor of the strength into account.
            assert meter.found[-1].pull == pytest.approx(slope / weight, rel=0.02)
        return float(entries.tensors[0].detach())

    assert end(1.1) == 0
    assert end(0.9) > 0.001


def test_entries_at_zero_are_pulled_in_any_direction() -> None:
    for slope in (0.2, -0.2):
        entries = selected([0.0])
        optimizer = SGD(entries.tensors, lr=LR)
        meter = train(entries, optimizer, slopes_of([slope]), 1.0, 'proximal')
        assert [m.pull for m in meter.found] == pytest.approx([0.2] * 4, rel=1e-3)


def test_under_an_adaptive_optimizer_it_is_the_normalised_gradient() -> None:
    entries = selected([9.0, 9.0])
    optimizer = AdamW(entries.tensors, lr=LR, weight_decay=0.0)
    meter = train(entries, optimizer, slopes_of([-1e-4, 1e3]), 0.05, 'proximal')
    assert [m.pull for m in meter.found] == pytest.approx([1.0] * 4, rel=0.01)


def test_what_is_not_pushed_does_not_count() -> None:
    entries = selected([9.0, 9.0], [1.0, 0.0])
    optimizer = SGD(entries.tensors, lr=LR)
    meter = train(entries, optimizer, slopes_of([-0.1, -5.0]))
    assert [m.pull for m in meter.found] == pytest.approx([0.1] * 4, rel=1e-3)


def test_noise_averages_out() -> None:
    generator = torch.Generator().manual_seed(0)
    entries = selected([9.0] * 20)
    optimizer = SGD(entries.tensors, lr=LR)

    def noisy() -> Iterator[Tensor]:
        while True:
            yield torch.randn(20, generator=generator) - 0.5

    pulls = [m.pull for m in train(entries, optimizer, noisy()).found]
    # The mean of 32 slopes has a standard deviation of 0.18.
    assert all(0.5 < pull < 0.5 + 4 * 0.18 for pull in pulls)


def test_a_measurement_continues_from_its_state() -> None:
    entries = selected([9.0])
    optimizer = SGD(entries.tensors, lr=LR)

    class Interrupted(PullMeter):
        def before(self, *args: Any) -> None:
            state = self.state_dict()
            self.__init__()  # type: ignore[misc]
            self.load_state_dict(state)
            super().before(*args)

    found = train(entries, optimizer, slopes_of([-0.1]), meter=Interrupted()).found
    assert [m.update for m in found] == [32, 132, 232, 332]
    assert [m.pull for m in found] == pytest.approx([0.1] * 4, rel=1e-3)


def test_scaled_gradients_count_as_they_are_unscaled() -> None:
    entries = selected([9.0])
    entries.tensors[0].grad = torch.tensor([-0.1 * 1024])
    meter = PullMeter()
    progress = Progress(0, 1, torch.tensor(1024.0), optimizer=SGD(entries.tensors, lr=LR))
    meter.before(entries, False, progress)
    assert meter.after(entries, False, progress)
    assert meter.found[0].pull == pytest.approx(0.1)


def test_a_skipped_update_is_not_counted() -> None:
    entries = selected([9.0])
    optimizer = SGD(entries.tensors, lr=LR)
    meter = PullMeter()
    entries.tensors[0].grad = torch.tensor([0.1])
    progress = Progress(0, 1, optimizer=optimizer)
    meter.before(entries, False, progress)
    meter.forget()
    assert not meter.after(entries, False, progress)
    assert not meter.found
