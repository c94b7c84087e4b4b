"""Calibration against batch statistics written out, and batches without statistics."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
import torch
from easypruner_plugins.eagle_eye import EagleEye
from easypruner_plugins.ratio import Ratio
from torch import Tensor, nn

import easypruner
from easypruner import Context
from easypruner.errors import EasyPrunerError
from easypruner.strategies.measures.calibration import calibrate
from easypruner.testing import example_inputs, randomized_network


class Pooled(nn.Module):
    """A batch norm over maps, and one behind a pooling, where a sample is a single value."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.maps = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
        self.hidden, self.rows = nn.Linear(8, 6), nn.BatchNorm1d(6)
        self.head = nn.Linear(6, 5)
        self.unused = nn.BatchNorm1d(4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maps(self.conv(x)).relu().mean((2, 3))
        return self.head(self.rows(self.hidden(x)).relu())


NORMS = ('maps', 'rows', 'unused')


def pooled() -> Pooled:
    model = randomized_network(Pooled)
    torch.manual_seed(0)
    for name in NORMS:
        nn.init.uniform_(getattr(model, name).running_mean, -1, 1)
        nn.init.uniform_(getattr(model, name).running_var, 1, 2)
    return model


def batches(*sizes: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(size, 3, 8, 8, generator=generator) for size in sizes]


@torch.no_grad()
def forward(model: nn.Module, batch: Tensor) -> Tensor:
    return model(batch)


def statistics(model: Pooled) -> dict[str, Tensor]:
    return {name: t.clone() for name, t in model.named_buffers() if 'running' in name}


@torch.no_grad()
def averages(model: Pooled, data: Iterable[Tensor]) -> dict[str, Tensor]:
    """Return the mean input of each norm over batches, with the norm before it in training."""
    found: dict[str, list[Tensor]] = {}

    def see(name: str, values: Tensor) -> None:
        found.setdefault(f'{name}.running_mean', []).append(values.mean(dim=0))
        found.setdefault(f'{name}.running_var', []).append(values.var(dim=0))

    for x in data:
        maps = model.conv(x)
        values = maps.movedim(1, -1).flatten(0, -2)
        see('maps', values)
        apart = (values.var(dim=0, correction=0) + model.maps.eps).sqrt()
        scale, shift = (t.view(-1, 1, 1) for t in (model.maps.weight, model.maps.bias))
        normed = (maps - values.mean(dim=0).view(-1, 1, 1)) / apart.view(-1, 1, 1)
        rows = model.hidden((normed * scale + shift).relu().mean((2, 3)))
        if len(rows) > 1:
            see('rows', rows)
    return {name: torch.stack(each).mean(dim=0) for name, each in found.items()}


@pytest.mark.parametrize('sizes', [(8, 8), (8, 8, 1), (1, 8, 8), (8, 1, 2), (2,)])
def test_each_norm_averages_the_batches_in_which_it_sees_a_variance(sizes: tuple[int, ...]) -> None:
    model, data = pooled(), batches(*sizes)
    expected = statistics(model) | averages(model, data)
    calibrate(model, data, forward)
    for name, tensor in statistics(model).items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-4, atol=1e-5)


def test_before_a_variance_is_known_the_old_statistics_are_used() -> None:
    model, whole = pooled(), pooled()
    seen: list[Tensor] = []
    model.rows.register_forward_hook(lambda norm, args, out: seen.append(out - whole.rows(*args)))
    calibrate(model, batches(1, 4, 1), forward)
    assert [bool(difference.any()) for difference in seen] == [False, True, True]


def test_a_norm_that_never_sees_a_variance_is_reported() -> None:
    model = pooled()
    before = statistics(model)
    with pytest.raises(EasyPrunerError, match=r"norm 'rows' .* single value .* two samples"):
        calibrate(model, batches(1, 1), forward)
    assert torch.equal(model.rows.running_var, before['rows.running_var'])


@pytest.mark.parametrize('fails', [False, True])
def test_modes_momenta_and_hooks_are_restored(fails: bool) -> None:
    model = pooled().train()
    model.maps.eval()
    model.rows.momentum = None
    modes = {name: module.training for name, module in model.named_modules()}
    actual = []

    def run(model: nn.Module, x: Tensor) -> None:
        actual.append({n: m.training for n, m in model.named_modules() if not list(m.children())})
        forward(model, x)
        if fails:
            raise RuntimeError('no more')

    if fails:
        with pytest.raises(RuntimeError, match='no more'):
            calibrate(model, batches(4, 4), run)
    else:
        calibrate(model, batches(4, 4), run)
    assert not any(actual[0].values())
    assert {name: module.training for name, module in model.named_modules()} == modes
    assert [getattr(model, name).momentum for name in NORMS] == [0.1, None, 0.1]
    assert not any(module._forward_pre_hooks for module in model.modules())


class Stubborn(Pooled):
    """Ignores ``eval()``."""

    def train(self, mode: bool = True) -> Stubborn:
        raise AssertionError('modes are to be set directly')


def test_an_overridden_eval_is_not_called() -> None:
    calibrate(Stubborn(), batches(4), forward)


def test_a_data_set_that_leaves_a_batch_of_one() -> None:
    model, data = (
        randomized_network(Pooled),
        [(x, torch.zeros(len(x)).long()) for x in batches(32, 1)],
    )
    slimmed = easypruner.slim(model, example_inputs(), macs=0.6, batches=data, verify=False)
    assert all(bool(t.isfinite().all()) for t in slimmed.model.state_dict().values())
    context = Context(
        batches=lambda: data,
        loss=lambda model, batch: nn.functional.cross_entropy(model(batch[0]), batch[1]),
        forward=lambda model, batch: forward(model, batch[0]),
    )
    graph = easypruner.trace(model, example_inputs())
    masks = EagleEye(Ratio(keep=0.5), candidates=6).select(graph, context)
    assert sum(masks.kept(name) for name in masks) == 7
