"""GlobalSparsity and MaskSparsity: their gradients are the papers' formulas, exactly."""

from __future__ import annotations

import pytest
import torch
from easypruner_plugins.global_sparsity import GlobalSparsity
from easypruner_plugins.mask_sparsity import MaskSparsity
from torch import Tensor, nn

import easypruner
from easypruner import Masks, Progress, Regularizer, Schedule
from easypruner.errors import ConfigError, EasyPrunerError
from easypruner.strategies.regularizers.scale_penalty import NORMS, ScalePenalty
from easypruner.testing import example_inputs, random_masks, randomized_network
from easypruner.testing.networks import Depthwise, Plain, Residual, SqueezeExcite
from tests.helpers.networks import NETWORKS, Volume, traced_network
from tests.helpers.optimizers import moved_by_sgd
from tests.helpers.pushes import (
    GRAD_SCALE,
    LR,
    RAMP,
    STRENGTH,
    Case,
    added_gradients,
    assert_same,
    make_case,
    make_narrow_case,
    penalty_gradients,
)


def on_residual(regularizer: Regularizer, masks: Masks | None, scale: float | None = None) -> dict:
    """Return the gradient that the regularizer adds to each parameter."""
    model = randomized_network(Residual)
    with torch.no_grad():
        model.stem[1].weight[::2] *= -1
        model.stem[1].weight[0] = 0
    graph = easypruner.trace(model, example_inputs())
    grad_scale = None if scale is None else torch.tensor(scale)
    model(example_inputs()).square().mean().backward()
    before = {name: p.grad.clone() for name, p in model.named_parameters()}
    regularizer.add_gradient(graph, masks, Progress(0, 1, grad_scale))
    return {
        name: (p.detach(), p.grad.double() - before[name].double())
        for name, p in model.named_parameters()
    }


def is_scale(name: str) -> bool:
    return name in ('stem.1.weight', 'branch.0.1.weight', 'branch.2.weight')


def test_global_sparsity_pushes_every_scale() -> None:
    for name, (parameter, gradient) in on_residual(GlobalSparsity(STRENGTH), None).items():
        expected = STRENGTH * parameter.sign() if is_scale(name) else torch.zeros_like(parameter)
        assert torch.allclose(gradient, expected.double(), atol=1e-6), name


def test_mask_sparsity_pushes_the_removed_scales_and_nothing_else() -> None:
    masks = Masks({'stem.0': torch.arange(8) < 5, 'branch.0.0': torch.arange(6) > 1})
    removed = {
        'stem.1.weight': ~masks['stem.0'],
        'branch.2.weight': ~masks['stem.0'],
        'branch.0.1.weight': ~masks['branch.0.0'],
    }
    for name, (parameter, gradient) in on_residual(MaskSparsity(STRENGTH), masks).items():
        if name not in removed:
            assert not gradient.any(), name
            continue
        assert not gradient[~removed[name]].any()
        expected = STRENGTH * parameter.sign()[removed[name]].double()
        assert torch.allclose(gradient[removed[name]], expected, atol=1e-6)


def test_scaled_gradients_get_a_scaled_penalty() -> None:
    parameter, gradient = on_residual(GlobalSparsity(STRENGTH), None, 8.0)['stem.1.weight']
    assert torch.allclose(gradient, 8 * STRENGTH * parameter.sign().double(), atol=1e-6)


@pytest.mark.parametrize('kind', [GlobalSparsity, MaskSparsity])
def test_the_gradient_is_that_of_the_penalty(kind: type[Regularizer]) -> None:
    model = randomized_network(Residual)
    graph = easypruner.trace(model, example_inputs())
    masks = random_masks(graph)
    regularizer = kind(0.3)
    regularizer.add_gradient(graph, masks, Progress(0, 1))
    fast = {name: p.grad for name, p in model.named_parameters()}
    model.zero_grad()
    Regularizer.add_gradient(regularizer, graph, masks, Progress(0, 1))
    for name, parameter in model.named_parameters():
        if fast[name] is None:
            assert parameter.grad is None
        else:
            assert torch.allclose(fast[name], parameter.grad), name


def test_a_reach_determines_the_strength_that_moves_a_scale_that_far() -> None:
    for updates in (5, 100):
        schedule = Schedule(lr_sum=0.02 * updates, momentum=0.9, updates=updates)
        regularizer = GlobalSparsity({'reach': 5.0})
        regularizer.schedule(schedule)
        strengths = [regularizer.strength] * updates
        assert moved_by_sgd([0.02] * updates, strengths, 0.9) == pytest.approx(5.0)
        assert regularizer.reach(schedule) == pytest.approx(5.0)
        fixed = GlobalSparsity(5e-4)
        fixed.schedule(schedule)
        moved = moved_by_sgd([0.02] * updates, [5e-4] * updates, 0.9)
        assert fixed.reach(schedule) == pytest.approx(moved)


def test_the_largest_scale_is_the_largest_pushed_one() -> None:
    model = randomized_network(Residual)
    with torch.no_grad():
        model.stem[1].weight[0] = -7
    graph = easypruner.trace(model, example_inputs())
    masks = Masks({'stem.0': torch.arange(8) != 3})
    assert GlobalSparsity(1.0).largest(graph, None) == 7
    pushed = max(model.stem[1].weight[3].abs(), model.branch[2].weight[3].abs()).detach()
    assert MaskSparsity(1.0).largest(graph, masks) == pytest.approx(pushed.item())


def test_mask_sparsity_without_masks_reports_what_is_missing() -> None:
    graph = traced_network(Residual)
    with pytest.raises(ConfigError, match='SelectMask'):
        MaskSparsity(1.0).add_gradient(graph, None, Progress(0, 1))
    assert MaskSparsity(1.0).largest(graph, Masks()) == 0


@pytest.mark.parametrize('strength', [-1.0, 'much', True, {'far': 1.0}, {'reach': -2.0}])
def test_an_invalid_strength_is_refused(strength: object) -> None:
    with pytest.raises(ConfigError, match='strength='):
        GlobalSparsity(strength)


FACTOR = RAMP * GRAD_SCALE
KINDS = (GlobalSparsity, MaskSparsity)
NETWORKS_WITH_SCALES = tuple(build for build in NETWORKS if build is not Volume)


def norm_by_hand(value: Tensor, norm: str, strength: float) -> Tensor:
    """Return the penalty of one value; of smooth l1 for the learning rate LR at a quarter."""
    if norm == 'l1':
        return strength * value.abs()
    if norm == 'l2':
        return strength / 2 * value**2
    # The ramp is part of the strength that decides where the parabola ends.
    now = RAMP * strength
    width = LR * now
    inside = value**2 / (2 * LR)
    outside = now * (value.abs() - width / 2)
    return (inside if value.abs() < width else outside) / RAMP


def scales_by_hand(case: Case, norm: str, masked: bool) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for name, module in case.scales().items():
        for channel, (factor, kept) in enumerate(case.channels(name)):
            if not (masked and kept):
                total = total + norm_by_hand(module.weight[channel], norm, STRENGTH * factor)
    return total


def weights_by_hand(case: Case, norm: str, masked: bool) -> Tensor:
    """Return the penalty on the producing weights of groups without a batch norm."""
    total = torch.zeros((), dtype=torch.float64)
    scales = case.scales()
    for name, unit, slices in case.units('producers'):
        members = case.graph.groups[name].members
        if any(m.param in scales for m in members) or (masked and case.masks[name][unit]):
            continue
        for part in slices:
            for value in part.flatten():
                total = total + norm_by_hand(value, norm, STRENGTH * case.factor(name))
    return total


@pytest.mark.parametrize('norm', NORMS)
@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('build', NETWORKS_WITH_SCALES)
def test_the_gradient_on_scales_is_the_formulas(
    build: type[nn.Module], kind: type[ScalePenalty], norm: str
) -> None:
    given = make_case(build)
    regularizer = kind(
        STRENGTH,
        norm=norm,
        without_scales='skip',
        strength_schedule='linear',
        group_strengths=given.strengths,
    )
    expected = penalty_gradients(scales_by_hand(given, norm, kind is MaskSparsity), given.model)
    assert_same(added_gradients(regularizer, given, given.masks), expected, FACTOR)


@pytest.mark.parametrize('norm', NORMS)
@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('build', [Volume, Depthwise, SqueezeExcite])
def test_groups_without_scales_may_have_their_weights_pushed(
    build: type[nn.Module], kind: type[ScalePenalty], norm: str
) -> None:
    given = make_case(build)
    masked = kind is MaskSparsity
    regularizer = kind(
        STRENGTH,
        norm=norm,
        without_scales='weights',
        strength_schedule='linear',
        group_strengths=given.strengths,
    )
    total = scales_by_hand(given, norm, masked) + weights_by_hand(given, norm, masked)
    assert_same(
        added_gradients(regularizer, given, given.masks),
        penalty_gradients(total, given.model),
        FACTOR,
    )


@pytest.mark.parametrize('norm', NORMS)
@pytest.mark.parametrize('without_scales', ['skip', 'weights'])
def test_the_penalty_has_this_gradient(norm: str, without_scales: str) -> None:
    given = make_case(Depthwise)
    regularizer = MaskSparsity(
        STRENGTH, norm=norm, without_scales=without_scales, group_strengths=given.strengths
    )
    actual = added_gradients(regularizer, given, given.masks, Progress(0, 1, lr=LR))
    width = LR * STRENGTH if norm == 'smooth_l1' else 0.0
    penalty = regularizer.penalty(given.graph, given.masks, width)
    assert_same(actual, penalty_gradients(penalty, given.model), 1)


def test_smooth_l1_is_l1_where_its_parabola_has_no_width() -> None:
    given = make_case(Residual)
    smooth, sharp = (GlobalSparsity(STRENGTH, norm=norm) for norm in ('smooth_l1', 'l1'))
    assert torch.equal(smooth.penalty(given.graph, None), sharp.penalty(given.graph, None))
    still = Progress(0, 1, lr=0.0)
    assert_same(
        added_gradients(smooth, given, None, still), added_gradients(sharp, given, None, still), 1
    )


@pytest.mark.parametrize('scale', [None, 8.0])
def test_smooth_l1_reaches_zero_where_l1_overshoots(scale: float | None) -> None:
    given = make_case(Residual)
    near = given.model.stem[1].weight
    with torch.no_grad():
        near.fill_(0.9 * LR * STRENGTH)
    for norm, left in (('smooth_l1', 0.0), ('l1', -0.1 * LR * STRENGTH)):
        gradient = added_gradients(
            GlobalSparsity(STRENGTH, norm=norm),
            given,
            None,
            Progress(0, 1, None if scale is None else torch.tensor(scale), lr=LR),
        )['stem.1.weight']
        after = near.detach() - LR * gradient / (scale or 1.0)
        assert torch.allclose(after, torch.full_like(after, left), atol=1e-12)


def test_groups_without_scales_are_an_error_that_names_them() -> None:
    given = make_case(Depthwise)
    regularizer = MaskSparsity(STRENGTH)
    with pytest.raises(EasyPrunerError, match=r"'multiplied\.0'|'project'") as caught:
        regularizer.add_gradient(given.graph, given.masks, Progress(0, 1))
    assert "without_scales='weights'" in str(caught.value)
    with pytest.raises(EasyPrunerError, match='project'):
        regularizer.penalty(given.graph, given.masks)


def test_a_group_without_scales_that_stays_whole_is_not_an_error() -> None:
    given = make_case(Depthwise)
    masks = Masks({'expand.0': given.masks['expand.0']})
    actual = added_gradients(MaskSparsity(STRENGTH), given, masks)
    assert not actual['project.weight'].any() and actual['expand.1.weight'].any()
    spared = MaskSparsity(STRENGTH, group_strengths={'expand': 1.0, '*': 0.0})
    assert added_gradients(spared, given, given.masks)['expand.1.weight'].any()


def test_before_a_run_the_masks_are_unknown_and_nothing_is_refused() -> None:
    given = make_case(Depthwise)
    every = Masks({n: torch.zeros(g.size).bool() for n, g in given.graph.groups.items()})
    scales = [m.weight.detach().abs().max() for m in given.scales().values()]
    assert MaskSparsity(STRENGTH).largest(given.graph, every) == max(scales)


def test_a_network_without_scales_is_refused_or_has_its_weights_pushed() -> None:
    given = make_case(Volume)
    with pytest.raises(EasyPrunerError, match='none to push in this Volume'):
        GlobalSparsity(STRENGTH).largest(given.graph, None)
    with pytest.raises(EasyPrunerError, match="'first'"):
        MaskSparsity(STRENGTH).largest(given.graph, given.masks)
    largest = GlobalSparsity(STRENGTH, without_scales='weights').largest(given.graph, None)
    assert largest == max(p.detach().abs().max() for p in (
        given.model.first.weight, given.model.second.weight
    ))  # fmt: skip


class Normed(nn.Module):
    """One channel group behind each kind of norm."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.group = nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8)
        self.b, self.layer = nn.Conv2d(8, 6, 1), nn.LayerNorm(6)
        self.c, self.instance = nn.Conv2d(6, 5, 1), nn.InstanceNorm2d(5, affine=True)
        self.d, self.batch = nn.Conv2d(5, 4, 1), nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer(self.b(self.group(self.a(x)).relu()).permute(0, 2, 3, 1))
        x = self.instance(self.c(x.permute(0, 3, 1, 2)))
        return self.head(self.batch(self.d(x)).mean((2, 3)))


@pytest.mark.parametrize(
    ('scales', 'pushed'),
    [
        ('batch_norm', {'batch.weight', 'instance.weight'}),
        ('instance_norm', {'batch.weight', 'instance.weight'}),
        (('group_norm', 'layer_norm'), {'group.weight', 'layer.weight'}),
    ],
)
@pytest.mark.parametrize('kind', KINDS)
def test_scales_of_other_norms(
    kind: type[ScalePenalty], scales: str | tuple[str, ...], pushed: set[str]
) -> None:
    given = make_case(Normed)
    actual = added_gradients(
        kind(STRENGTH, scales=scales, without_scales='skip'), given, given.masks
    )
    assert {name for name, gradient in actual.items() if gradient.any()} == pushed
    for name in pushed:
        values = dict(given.model.named_parameters())[name].detach()
        goes = ~torch.tensor([kept for _, kept in given.channels(name)])
        which = goes if kind is MaskSparsity else torch.ones_like(goes)
        expected = GRAD_SCALE * STRENGTH * values.sign() * which
        torch.testing.assert_close(actual[name], expected)


@pytest.mark.parametrize('masks', ['none', 'nearly all'])
def test_masks_that_remove_nothing_or_nearly_all(masks: str) -> None:
    given = make_case(Plain)
    sizes = {name: group.size for name, group in given.graph.groups.items()}
    if masks == 'none':
        whole = Masks({name: torch.ones(size).bool() for name, size in sizes.items()})
        actual = added_gradients(MaskSparsity(STRENGTH), given, whole, Progress(0, 1))
        assert not any(gradient.any() for gradient in actual.values())
        assert float(MaskSparsity(STRENGTH).penalty(given.graph, whole)) == 0
        return
    one_left = Masks({name: torch.arange(size) == 2 for name, size in sizes.items()})
    for name, module in given.scales().items():
        expected = STRENGTH * module.weight.detach().sign()
        expected[2] = 0
        actual = added_gradients(MaskSparsity(STRENGTH), given, one_left, Progress(0, 1))
        torch.testing.assert_close(actual[name], expected)


def test_a_group_of_one_unit_is_pushed_if_removed() -> None:
    given = make_narrow_case(Plain)
    actual = added_gradients(MaskSparsity(STRENGTH), given, given.masks, Progress(0, 1))[
        'body.0.1.weight'
    ]
    torch.testing.assert_close(actual, STRENGTH * given.model.body[0][1].weight.detach().sign())


def test_the_largest_counts_relative_to_its_groups_factor() -> None:
    given = make_case(Plain)
    with torch.no_grad():
        for module in given.scales().values():
            module.weight.fill_(0.5)
    regularizer = GlobalSparsity(STRENGTH, group_strengths={'body.0.0': 0.25, '*': 0.0})
    assert regularizer.largest(given.graph, None) == pytest.approx(2.0)


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        ({'norm': 'smooth'}, "norm='smooth'.*did you mean 'smooth_l1'"),
        ({'scales': ('batchnorm',)}, "did you mean 'batch_norm'"),
        ({'scales': ()}, r'scales=\(\) of \w+; expected one or more of'),
        ({'without_scales': 'weight'}, "did you mean 'weights'"),
        ({'strength_schedule': 'cosin'}, "did you mean 'cosine'"),
        ({'group_strengths': {'a': -1.0}}, 'group_strengths'),
        ({'group_strengths': {'a': float('nan')}}, 'group_strengths'),
    ],
)
@pytest.mark.parametrize('kind', KINDS)
def test_invalid_arguments_are_refused(
    kind: type[ScalePenalty], arguments: dict, words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        kind(STRENGTH, **arguments)


def test_a_pattern_that_fits_no_group_is_refused() -> None:
    given = make_case(Plain)
    with pytest.raises(ConfigError, match="'stem'"):
        GlobalSparsity(1.0, group_strengths={'stem': 2.0}).largest(given.graph, None)
