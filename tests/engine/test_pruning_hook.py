"""The gradients that the optimizer gets with and without a regularizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from easypruner_plugins.global_sparsity import GlobalSparsity
from easypruner_plugins.mask_sparsity import MaskSparsity
from mmengine.config import Config
from mmengine.hooks import Hook
from torch import Tensor, nn

from easypruner import Masks, Progress, Regularizer
from easypruner.engine.pruning_hook import PruningHook
from easypruner.engine.runner import RunnerPlan, Tracer, build_runner
from easypruner.engine.schedule import measure_schedule
from easypruner.strategies import Schedule
from easypruner.strategies.regularizers.reach import weak_reach
from tests.helpers.tiny import tiny_config
from tests.helpers.training import (
    EPOCHS,
    ITERATIONS,
    WAYS,
    every_second_unit,
    removed_channels,
)

STRENGTH = 0.125


class Gradients(Hook):
    """Copies every gradient when the optimizer steps, in the order of registration."""

    def __init__(self, priority: str) -> None:
        self.priority = priority
        self.steps: list[dict[str, Tensor]] = []
        self.scales: list[dict[str, Tensor]] = []

    def before_train(self, runner: Any) -> None:
        def copy(*_: Any) -> None:
            parameters = dict(runner.model.named_parameters())
            self.steps.append({name: p.grad.clone() for name, p in parameters.items()})
            self.scales.append({name: p.detach().clone() for name, p in parameters.items()})

        runner.optim_wrapper.optimizer.register_step_pre_hook(copy)


class Counted(Regularizer):
    """Pushes nothing and records its calls."""

    def __init__(self) -> None:
        super().__init__(strength=1.0)
        self.calls: list[Progress] = []

    def add_gradient(self, graph: Any, masks: Any, progress: Progress) -> None:
        self.calls.append(progress)


def run(
    folder: Path,
    regularizer: Regularizer,
    masks: Masks | None,
    every: int = 1,
    **optim_wrapper: Any,
) -> tuple[Gradients, Gradients, Schedule]:
    content = tiny_config(stages=None)
    content['optim_wrapper'] |= optim_wrapper
    schedule = measure_schedule(content, ITERATIONS // EPOCHS, EPOCHS)
    config = Config(content)
    hook = PruningHook(regularizer, masks, schedule, Tracer(config, ()), every=every)
    before, after = Gradients('LOW'), Gradients('LOWEST')
    plan = RunnerPlan(folder, seed=0, epochs=EPOCHS, hooks=[hook, before, after])
    runner = build_runner(config, plan)
    runner.train()
    assert_detached(runner, before)
    return before, after, schedule


def assert_detached(runner: Any, recorder: Gradients) -> None:
    """Check that later training gets no penalty: only the hooks of the two recorders are left."""
    steps = len(recorder.steps)
    optimizer = runner.optim_wrapper.optimizer
    assert len(optimizer._optimizer_step_pre_hooks) == 2
    del recorder.steps[steps:]


@pytest.fixture(scope='module')
def masks() -> Masks:
    return every_second_unit()


@pytest.mark.parametrize('way', WAYS)
def test_mask_sparsity_pushes_exactly_the_removed_scales(
    way: str, masks: Masks, tmp_path: Path
) -> None:
    before, after, schedule = run(tmp_path, MaskSparsity(STRENGTH), masks, **WAYS[way])
    removed_anywhere = kept_anywhere = 0
    assert len(after.steps) == schedule.updates > 0
    removed = removed_channels(masks)
    for without, with_penalty, scales in zip(before.steps, after.steps, after.scales, strict=True):
        for name, gradient in with_penalty.items():
            goes = removed.get(name, torch.zeros(len(gradient), dtype=torch.bool))
            push = STRENGTH * torch.sign(scales[name])
            expected = (
                torch.where(goes, without[name] + push, without[name])
                if gradient.dim() == 1
                else without[name]
            )
            assert torch.equal(gradient, expected), name
            removed_anywhere += int(goes.sum())
            kept_anywhere += int((~goes).sum()) if name in removed else 0
    assert removed_anywhere
    assert kept_anywhere


def test_global_sparsity_pushes_every_scale(tmp_path: Path) -> None:
    before, after, _ = run(tmp_path, GlobalSparsity(STRENGTH), None)
    model = build_runner(Config(tiny_config(stages=None)), RunnerPlan(tmp_path, seed=0)).model
    norms = {f'{path}.weight' for path, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)}
    assert norms
    for without, with_penalty, scales in zip(before.steps, after.steps, after.scales, strict=True):
        for name, gradient in with_penalty.items():
            push = STRENGTH * torch.sign(scales[name]) if name in norms else 0.0
            assert torch.equal(gradient, without[name] + push), name


@pytest.mark.parametrize(('accumulation', 'updates'), [(1, 6), (2, 3), (4, 2)])
def test_progress_counts_updates(accumulation: int, updates: int, tmp_path: Path) -> None:
    regularizer = Counted()
    run(tmp_path, regularizer, None, accumulative_counts=accumulation)
    assert [reported.update for reported in regularizer.calls] == list(range(updates))
    assert {reported.updates for reported in regularizer.calls} == {updates}
    assert {reported.grad_scale for reported in regularizer.calls} == {None}


@pytest.mark.parametrize('way', WAYS)
def test_a_lazy_push_stands_for_the_updates_until_the_next(
    way: str, masks: Masks, tmp_path: Path
) -> None:
    """Over the stage it adds the same as a push at each update, if scales keep their sign."""
    every = 4
    before, after, schedule = run(tmp_path, GlobalSparsity(STRENGTH), None, every, **WAYS[way])
    in_all = 0
    for update, (without, pushed) in enumerate(zip(before.steps, after.steps, strict=True)):
        times = 0 if update % every else min(every, schedule.updates - update)
        in_all += times
        for name, gradient in pushed.items():
            is_scale = gradient.dim() == 1 and bool((gradient != without[name]).any())
            push = times * STRENGTH * torch.sign(after.scales[update][name]) if is_scale else 0.0
            assert torch.equal(gradient, without[name] + push), name
        moved = any(bool((pushed[name] != without[name]).any()) for name in pushed)
        assert moved == bool(times)
    assert in_all == schedule.updates


def test_a_lazy_push_takes_small_scales_to_zero_and_not_beyond(tmp_path: Path) -> None:
    """One step of plain SGD by smooth l1 ends at zero, however many updates it replaces."""
    regularizer = GlobalSparsity(strength=1e3, norm='smooth_l1')
    before, after, _ = run(
        tmp_path, regularizer, None, every=3, optimizer=dict(type='SGD', lr=0.1, momentum=0.0)
    )
    pushes = {n: g - before.steps[0][n] for n, g in after.steps[0].items()}
    pushed = [name for name, push in pushes.items() if bool(push.any())]
    assert pushed
    for name in pushed:
        landed = after.scales[0][name] - 0.1 * pushes[name]
        torch.testing.assert_close(landed, torch.zeros_like(landed), rtol=0, atol=1e-5)


class Reaching(Regularizer):
    """Has to bring a magnitude of 2 to zero."""

    def largest(self, graph: Any, masks: Any) -> float:
        return 2.0


@pytest.mark.parametrize(('reach', 'warns'), [(3.9, True), (4.0, False), (50.0, False)])
def test_a_short_reach_is_a_warning(reach: float, warns: bool) -> None:
    regularizer, schedule = Reaching(strength=dict(reach=reach)), Schedule(0.5, 0.9, 10)
    regularizer.schedule(schedule)
    warning = weak_reach(regularizer, schedule, None, None)  # type: ignore[arg-type]
    assert bool(warning) == warns
    assert not warns or ('Reaching' in warning and '3.9' in warning)
