"""The proximal form: parameters before and after each push of a real training."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from easypruner_plugins.global_sparsity import GlobalSparsity
from easypruner_plugins.grad_decay import GradDecay
from easypruner_plugins.greg import GReg
from easypruner_plugins.group_lasso import GroupLasso
from easypruner_plugins.hoyer_square import HoyerSquare
from easypruner_plugins.mask_sparsity import MaskSparsity
from easypruner_plugins.polarization import Polarization
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import OPTIMIZERS
from torch import Tensor
from torch.optim import Optimizer

from easypruner import Masks, Progress, Regularizer
from easypruner.engine.averaging import AveragingHook
from easypruner.engine.pruning_hook import PruningHook
from easypruner.engine.runner import RunnerPlan, Tracer, build_runner
from easypruner.engine.schedule import measure_schedule
from easypruner.errors import ConfigError
from easypruner.strategies import Schedule
from easypruner.strategies.regularizers.reach import weak_reach
from tests.helpers.optimizers import moved_by_sgd
from tests.helpers.tiny import original_model, tiny_config
from tests.helpers.training import (
    EPOCHS,
    ITERATIONS,
    WAYS,
    every_second_unit,
    removed_channels,
)

STRENGTH = 0.25
Values = dict[str, Tensor]


@OPTIMIZERS.register_module()
class SignStep(Optimizer):
    """Moves each entry by the learning rate, as Lion does."""

    def __init__(self, params: Any, lr: float = 0.1) -> None:
        super().__init__(params, dict(lr=lr))

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for parameter in group['params']:
                if parameter.grad is not None:
                    parameter.sub_(group['lr'] * parameter.grad.sign())


class Recorder(Hook):
    """Copies all parameters after each optimizer step, in the order of registration."""

    def __init__(self, priority: str) -> None:
        self.priority = priority
        self.steps: list[Values] = []
        self.rates: list[dict[str, float]] = []

    def before_train(self, runner: Any) -> None:
        named = dict(runner.model.named_parameters())
        names = {parameter: name for name, parameter in named.items()}

        def copy(optimizer: Optimizer, *_: Any) -> None:
            self.steps.append({name: p.detach().clone() for name, p in named.items()})
            groups = [(g['lr'], p) for g in optimizer.param_groups for p in g['params']]
            self.rates.append({names[p]: rate for rate, p in groups})

        runner.optim_wrapper.optimizer.register_step_post_hook(copy)


class Ends(Hook):
    """Records the parameters before the first update and at the end of the training."""

    priority = 'LOWEST'

    def before_train(self, runner: Any) -> None:
        self.first = {n: p.detach().clone() for n, p in runner.model.named_parameters()}

    def after_train(self, runner: Any) -> None:
        self.last = {n: p.detach().clone() for n, p in runner.model.named_parameters()}


class Exploding(Hook):
    """Makes a gradient infinite in the third iteration."""

    def before_train(self, runner: Any) -> None:
        weight = next(runner.model.parameters())
        weight.register_hook(lambda g: g * float('inf') if runner.iter == 2 else g)


def trained(
    folder: Path, regularizer: Regularizer, masks: Masks | None, every: int = 1,
    hooks: tuple[Hook, ...] = (), **optim_wrapper: Any,
) -> tuple[Recorder, Recorder, Schedule]:  # fmt: skip
    """Train; return the parameters before and after each push."""
    content = tiny_config(stages=None)
    content['optim_wrapper'] |= optim_wrapper
    config = Config(content)
    before, after = Recorder('LOW'), Recorder('LOWEST')
    plan = RunnerPlan(folder, seed=0, epochs=EPOCHS, hooks=[before, after, *hooks])
    runner = build_runner(config, plan)
    schedule = measure_schedule(content, ITERATIONS // EPOCHS, EPOCHS, runner.plain_model)
    push = PruningHook(regularizer, masks, schedule, Tracer(config, ()), every=every)
    runner.register_hook(push)
    runner.train()
    optimizer = runner.optim_wrapper.optimizer
    assert len(optimizer._optimizer_step_pre_hooks) == 0
    assert len(optimizer._optimizer_step_post_hooks) == 2
    return before, after, schedule


def soft(values: Tensor, threshold: float) -> Tensor:
    """Return soft thresholding by its definition, entry by entry."""
    entries = [max(abs(v) - threshold, 0) * (1 if v > 0 else -1) for v in values.tolist()]
    return torch.tensor(entries, dtype=values.dtype)


@pytest.fixture(scope='module')
def masks() -> Masks:
    return every_second_unit()


@pytest.fixture(scope='module')
def gone(masks: Masks) -> Values:
    """Return the removed entries of all scales and biases of norms."""
    scales = removed_channels(masks)
    return scales | {n.removesuffix('weight') + 'bias': goes for n, goes in scales.items()}


def check_step(before: Values, after: Values, gone: Values, thresholds: Mapping[str, float]) -> int:
    """Compare a step with soft thresholding; return the number of entries that reach zero."""
    zeros = 0
    for name, values in after.items():
        goes = gone.get(name)
        if goes is None:
            assert torch.equal(values, before[name]), name
            continue
        assert torch.equal(values[~goes], before[name][~goes]), name
        expected = soft(before[name][goes], thresholds[name])
        torch.testing.assert_close(values[goes], expected, rtol=1e-5, atol=1e-7)
        assert torch.equal(values[goes] == 0, expected == 0)
        zeros += int((values[goes] == 0).sum())
    return zeros


@pytest.mark.parametrize('optimizer', ['SGD', 'AdamW'])
@pytest.mark.parametrize('way', WAYS)
def test_each_update_is_followed_by_one_soft_threshold(
    way: str, optimizer: str, masks: Masks, gone: Values, tmp_path: Path
) -> None:
    momentum = dict(momentum=0.9) if optimizer == 'SGD' else {}
    settings = dict(type=optimizer, lr=0.1, **momentum)
    strength = STRENGTH if optimizer == 'SGD' else STRENGTH / (1 - 0.9)
    regularizer = MaskSparsity(strength, apply='proximal')
    before, after, schedule = trained(
        tmp_path, regularizer, masks, **WAYS[way] | dict(optimizer=settings)
    )
    assert len(before.steps) == len(after.steps) == schedule.updates > 0
    zeros = 0
    for first, then, rates in zip(before.steps, after.steps, after.rates, strict=True):
        thresholds = {name: STRENGTH * rate / (1 - 0.9) for name, rate in rates.items()}
        zeros += check_step(first, then, gone, thresholds)
    assert zeros


@pytest.mark.parametrize('way', ['plain', 'accumulation', 'gradient scaler'])
def test_a_lazy_threshold_stands_for_the_updates_until_the_next(
    way: str, masks: Masks, gone: Values, tmp_path: Path
) -> None:
    every = 2 if way == 'accumulation' else 4
    regularizer = MaskSparsity(STRENGTH / 16, apply='proximal')
    before, after, schedule = trained(tmp_path, regularizer, masks, every, **WAYS[way])
    in_all = 0
    for update, (first, then) in enumerate(zip(before.steps, after.steps, strict=True)):
        times = 0 if update % every else min(every, schedule.updates - update)
        in_all += times
        factor = times * STRENGTH / 16 / (1 - 0.9)
        thresholds = {name: factor * rate for name, rate in after.rates[update].items()}
        check_step(first, then, gone if times else {}, thresholds)
    assert in_all == schedule.updates


class Idle(Regularizer):
    """A rule without a penalty, which counts its calls."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(strength=1.0, **arguments)
        self.calls: list[Progress] = []

    def add_gradient(self, graph: Any, masks: Any, progress: Progress) -> None:
        self.calls.append(progress)


def test_the_first_update_of_what_is_kept_is_that_without_a_regularizer(
    masks: Masks, gone: Values, tmp_path: Path
) -> None:
    _, alone, _ = trained(tmp_path / 'alone', Idle(), masks)
    _, pushed, _ = trained(tmp_path / 'pushed', MaskSparsity(STRENGTH, apply='proximal'), masks)
    for name, values in alone.steps[0].items():
        goes = gone.get(name, torch.zeros(len(values), dtype=torch.bool))
        assert torch.equal(pushed.steps[0][name][~goes], values[~goes]), name
        assert not goes.any() or not torch.equal(pushed.steps[0][name], values)


@pytest.mark.parametrize('fused', [True, False])
def test_a_step_that_is_skipped_is_not_followed_by_a_push(
    fused: bool, masks: Masks, gone: Values, tmp_path: Path
) -> None:
    """A GradScaler leaves the step out, or lets a fused optimizer find out itself."""
    optimizer = dict(type='SGD', lr=0.1, momentum=0.9, fused=fused)
    regularizer = MaskSparsity(STRENGTH, apply='proximal')
    way = dict(type='ScaledAutocast', scale=True, optimizer=optimizer)
    before, after, _ = trained(tmp_path, regularizer, masks, hooks=(Exploding(),), **way)
    assert len(after.steps) == ITERATIONS - (not fused)
    for update, (first, then) in enumerate(zip(before.steps, after.steps, strict=True)):
        if fused and update == 2:
            for name, values in then.items():
                assert torch.equal(first[name], values)
                assert torch.equal(after.steps[1][name], values)
        else:
            factors = {n: STRENGTH * r / (1 - 0.9) for n, r in after.rates[update].items()}
            check_step(first, then, gone, factors)


def test_thresholds_and_the_reach_follow_the_rates_of_the_norms(
    masks: Masks, gone: Values, tmp_path: Path
) -> None:
    keys = {'bn1': dict(lr_mult=0.1), 'bn2': dict(lr_mult=2.0)}
    regularizer = MaskSparsity(dict(reach=3.0), apply='proximal')
    before, after, _ = trained(tmp_path, regularizer, masks, paramwise_cfg=dict(custom_keys=keys))
    rates = [step['backbone.bn1.weight'] for step in after.rates]
    assert rates == pytest.approx([0.1 * step['head.fc.weight'] for step in after.rates])
    assert regularizer.strength == pytest.approx(3.0 * (1 - 0.9) / sum(rates))
    for update, (first, then) in enumerate(zip(before.steps, after.steps, strict=True)):
        factor = regularizer.strength / (1 - 0.9)
        own = {name: factor * rate for name, rate in after.rates[update].items()}
        check_step(first, then, gone, own)


@pytest.mark.parametrize(('group', 'multiple'), [('stages.2.0.conv2', 2.0), ('conv1', 0.1)])
def test_the_reach_of_a_gradient_is_that_of_the_slowest_norm_that_is_pushed(
    group: str, multiple: float, masks: Masks, tmp_path: Path
) -> None:
    keys = {'bn1': dict(lr_mult=0.1), 'bn2': dict(lr_mult=2.0), 'downsample': dict(lr_mult=5.0)}
    one = Masks({f'backbone.{group}': masks[f'backbone.{group}']})
    regularizer = MaskSparsity(dict(reach=3.0))
    _, after, _ = trained(tmp_path, regularizer, one, paramwise_cfg=dict(custom_keys=keys))
    rates = [multiple * step['head.fc.weight'] for step in after.rates]
    strengths = [regularizer.strength] * len(rates)
    assert moved_by_sgd(rates, strengths, 0.9) == pytest.approx(3.0)


PENALTIES = {
    'MaskSparsity': lambda **apply: MaskSparsity(0.1, **apply),
    'GroupLasso': lambda **apply: GroupLasso(0.1, **apply),
    'GReg': lambda **apply: GReg(0.1, **apply),
    'GroupLasso alpha': lambda **apply: GroupLasso(0.1, alpha=4.0, **apply),
    'l2': lambda **apply: MaskSparsity(0.1, norm='l2', **apply),
    'GlobalSparsity': lambda **apply: GlobalSparsity(0.1, **apply),
    'HoyerSquare': lambda **apply: HoyerSquare(0.1, **apply),
    'Polarization': lambda **apply: Polarization(0.1, **apply),
}
SELECTING = ('GlobalSparsity', 'HoyerSquare', 'Polarization')
"""Those that compete with the gradient of the loss."""
SHRINKING = ('GReg', 'GroupLasso alpha', 'l2')
"""Those whose gradient is a factor times the weight."""


def scheduled(optimizer: str) -> Schedule:
    content = tiny_config(optim_wrapper=dict(optimizer=dict(type=optimizer, lr=0.1)))
    return measure_schedule(content, 3, 2, original_model())


@pytest.mark.parametrize('name', PENALTIES)
@pytest.mark.parametrize(
    ('optimizer', 'proximal'),
    [('SGD', False), ('Adam', True), ('AdamW', True), ('RMSprop', True), ('SignStep', True)],
)
def test_the_default_form_depends_on_the_optimizer(
    optimizer: str, proximal: bool, name: str
) -> None:
    schedule = scheduled(optimizer)
    regularizer = PENALTIES[name]()
    assert not regularizer.is_proximal
    regularizer.schedule(schedule)
    assert regularizer.is_proximal == (proximal and name not in SELECTING)
    regularizer.schedule(scheduled('SGD'))
    assert not regularizer.is_proximal
    for form in ('gradient', 'proximal'):
        chosen = PENALTIES[name](apply=form)
        fails = {'proximal': SELECTING, 'gradient': SHRINKING}[form]
        if proximal and name in fails:
            with pytest.raises(
                ConfigError, match=rf"apply='{form}' of .*{optimizer} .*leave apply"
            ):
                chosen.schedule(schedule)
            continue
        chosen.schedule(schedule)
        assert chosen.is_proximal == (form == 'proximal')


@pytest.mark.parametrize('name', ['GlobalSparsity', 'Polarization'])
def test_a_short_gradient_under_adam_names_the_rates_to_raise(name: str, tmp_path: Path) -> None:
    content = tiny_config(optim_wrapper=dict(optimizer=dict(type='AdamW', lr=1e-4)))
    model = original_model()
    graph = Tracer(Config(content), ())(model)

    def warning(factor: float) -> str:
        keys = {'bn': dict(lr_mult=factor), 'downsample': dict(lr_mult=factor)}
        raised = dict(content['optim_wrapper'], paramwise_cfg=dict(custom_keys=keys))
        schedule = measure_schedule(content | dict(optim_wrapper=raised), 3, 2, model)
        regularizer = PENALTIES[name]()
        slowest = schedule.slowest(regularizer.pushed_names(graph, None))
        regularizer.schedule(slowest)
        # AdamW moves each scale by its learning rate.
        assert regularizer.reach(slowest) == pytest.approx(slowest.lr_sum, rel=1e-3)
        return weak_reach(regularizer, slowest, graph, None)

    if name == 'GlobalSparsity':
        assert re.search(r'train longer, or raise the learning rate .*lr_mult', warning(1.0))
    assert not warning(1e5)
    with pytest.raises(ConfigError, match=r'give a number, and raise the learning rate .*lr_mult'):
        type(PENALTIES[name]())(dict(reach=5.0)).schedule(scheduled('AdamW'))


def test_rules_without_a_penalty_stay_gradients_under_adam(masks: Masks, tmp_path: Path) -> None:
    adam = dict(optimizer=dict(type='AdamW', lr=0.1))
    rule = Idle()
    before, after, schedule = trained(tmp_path / 'rule', rule, masks, **adam)
    assert [progress.update for progress in rule.calls] == list(range(schedule.updates))
    for first, then in zip(before.steps, after.steps, strict=True):
        assert all(torch.equal(first[name], values) for name, values in then.items())
    decay = GradDecay()
    _, after, _ = trained(tmp_path / 'decay', decay, masks, **adam)
    assert not decay.is_proximal
    for name, goes in removed_channels(masks).items():
        assert not after.steps[-1][name][goes].any()
        assert after.steps[-1][name][~goes].all()


def test_forms_that_are_impossible_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"apply='proximal' of Idle, which is not a penalty"):
        Idle(apply='proximal')
    with pytest.raises(ConfigError, match=r"apply='proximl' of MaskSparsity.*'proximal'"):
        MaskSparsity(0.1, apply='proximl')
    regularizer = MaskSparsity(dict(reach=5.0), apply='gradient')
    with pytest.raises(ConfigError, match=r"AdamW divides it by its own .* apply='proximal'"):
        regularizer.schedule(scheduled('AdamW'))
    regularizer.schedule(scheduled('SGD'))
    with pytest.raises(ConfigError, match=r'cannot be met by a gradient: AdamW'):
        Idle().strength_for(scheduled('AdamW'), {'reach': 5.0})


@pytest.mark.parametrize('kind', ['MaskSparsity', 'GroupLasso'])
def test_a_loop_starts_each_stage_anew(kind: str, masks: Masks, tmp_path: Path) -> None:
    """In rounds, one regularizer may push several times."""

    def make() -> Regularizer:
        strength = dict(until=0.01)
        lasso = kind == 'GroupLasso'
        return GroupLasso(strength, masked=True) if lasso else MaskSparsity(strength)

    again, fresh = make(), make()
    trained(tmp_path / 'before', again, masks, optimizer=dict(type='SGD', lr=0.02))
    assert again.loop is not None and fresh.loop is not None
    risen = dict(again.loop.gains)
    _, second, _ = trained(tmp_path / 'second', again, masks)
    _, first, _ = trained(tmp_path / 'first', fresh, masks)
    assert again.loop.gains == fresh.loop.gains != risen
    for one, other in zip(first.steps, second.steps, strict=True):
        assert all(torch.equal(values, other[name]) for name, values in one.items())


def test_all_that_is_removed_is_zero_at_the_end_of_a_closed_loop(
    masks: Masks, gone: Values, tmp_path: Path
) -> None:
    _, after, _ = trained(tmp_path, MaskSparsity(dict(until=0.01)), masks)
    for name, goes in gone.items():
        assert after.steps[-1][name][goes].abs().max() <= 0.01
        if name.endswith('weight'):
            assert after.steps[-1][name][~goes].abs().min() > 0.5


def test_an_average_takes_in_the_weights_after_each_push(
    masks: Masks, gone: Values, tmp_path: Path
) -> None:
    share = 0.25
    average, ends = AveragingHook(share), Ends()
    strong = MaskSparsity(1e6, apply='proximal')
    _, _, schedule = trained(tmp_path, strong, masks, hooks=(average, ends))
    for name, goes in gone.items():
        # From the first update on, the removed entries are zero.
        expected = ends.first[name][goes] * (1 - share) ** schedule.updates
        torch.testing.assert_close(ends.last[name][goes], expected)
    assert any(ends.first[name][goes].any() for name, goes in gone.items())
