"""slim(): one line prunes a network and reports the result."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import easypruner
from easypruner import Budget, Context, Limits, Masks, MaskSource, load_pruned, slim, trace
from easypruner.errors import BudgetError, ConfigError, EasyPrunerError, RecordError, TraceError
from easypruner.graph import ChannelGraph, LayerHandler
from easypruner.graph.cutting.handlers import Shapes
from easypruner.plugins.registry import BUDGETS, MASK_SOURCES, build
from easypruner.slimming import with_plugins
from easypruner.testing import example_inputs, randomized_network, tiny_batches
from easypruner.testing.networks import Plain, Residual
from tests.helpers.networks import NETWORKS, TwoInputs, traced_network


class Asking(MaskSource):
    """Keeps all channels, and records its context and the losses."""

    def __init__(self, budget: Budget | None = None) -> None:
        super().__init__(budget)
        self.calls: list[Any] = []

    def select(self, graph: ChannelGraph, context: Context) -> Masks:
        self.calls.append(context)
        for batch in context.some_batches(9, 'a test'):
            self.calls.append(context.needed('loss', 'a test')(graph.model, batch).item())
        return Masks({name: torch.ones(g.size) > 0 for name, g in graph.groups.items()})


def state_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize('network', NETWORKS, ids=lambda network: network.__name__)
def test_half_the_macs_of_any_network(network: type[nn.Module]) -> None:
    model = randomized_network(network)
    slimmed = slim(model, example_inputs(), macs=0.5)
    ours, whole = (trace(m, example_inputs()).cost().macs for m in (slimmed.model, model))
    assert ours <= 0.5 * whole
    assert (slimmed.summary.before.macs, slimmed.summary.after.macs) == (whole, ours)
    assert slimmed.summary.after.params == sum(p.numel() for p in slimmed.model.parameters())
    assert slimmed.summary.verification.passed
    assert slimmed.model(example_inputs()).shape == (2, 5)


def test_layer_handlers_of_plugins_set_the_numbers_of_layers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Handler(LayerHandler):
        handles = (nn.Linear,)

        def resize(self, layer: nn.Module, shapes: Shapes) -> None:
            layer.out_features, layer.in_features = shapes['weight']
            layer.handled = True

    monkeypatch.setitem(with_plugins._FOUND, 'handlers', lambda: (Handler(),))
    slimmed = slim(randomized_network(Plain), example_inputs(), macs=0.5)
    assert vars(slimmed.model.head)['handled']


def test_the_network_that_is_given_stays_as_it_is() -> None:
    model = randomized_network(Residual).train()
    model.stem[0].weight.requires_grad_(False)
    before = state_of(model)
    slimmed = slim(model, example_inputs(), macs=0.5, batches=tiny_batches())
    assert slimmed.model is not model
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    assert all(module.training for module in [*model.modules(), *slimmed.model.modules()])
    assert not slimmed.model.stem[0].weight.requires_grad
    ours = {p.data_ptr() for p in slimmed.model.parameters()}
    assert not ours & {p.data_ptr() for p in model.parameters()}


def test_it_does_the_same_as_the_single_steps() -> None:
    model = randomized_network(Residual)
    slimmed = slim(model, example_inputs(), macs=0.6, source='L1Norm')
    other = copy.deepcopy(model)
    graph = trace(other, example_inputs(), limits={'round_to': 'auto'})
    config = dict(type='L1Norm', budget=dict(type='Macs', keep=0.6))
    masks = build(MASK_SOURCES, config).select(graph, Context())
    record = easypruner.prune(other, masks, graph=graph)
    assert slimmed.record == record
    expected = other.state_dict()
    assert all(torch.equal(t, expected[n]) for n, t in slimmed.model.state_dict().items())


def test_the_record_rebuilds_the_network(tmp_path: Any) -> None:
    slimmed = slim(randomized_network(Residual), example_inputs(), macs=0.5)
    slimmed.record.save(tmp_path / 'architecture.json')
    torch.save(slimmed.model.state_dict(), tmp_path / 'weights.pth')
    again = load_pruned(Residual, tmp_path / 'weights.pth', tmp_path / 'architecture.json')
    assert torch.equal(again.eval()(example_inputs()), slimmed.model.eval()(example_inputs()))


class TestCutTwice:
    def test_the_record_of_both_cuts_rebuilds_the_network(self, tmp_path: Any) -> None:
        first = slim(randomized_network(Residual), example_inputs(), macs=0.7)
        first.record.save(tmp_path / 'first.json')
        for record in (first.record, tmp_path / 'first.json', first):
            second = slim(first.model, example_inputs(), macs=0.7, record=record)
            again = load_pruned(Residual, second.model.state_dict(), second.record)
            assert torch.equal(again.eval()(example_inputs()), second.model(example_inputs()))

    def test_without_it_the_record_is_that_of_the_last_cut(self) -> None:
        first = slim(randomized_network(Residual), example_inputs(), macs=0.7)
        second = slim(first.model, example_inputs(), macs=0.7)
        with pytest.raises(RecordError, match='give that of all cuts'):
            load_pruned(Residual, second.model.state_dict(), second.record)
        both = first.record.then(second.record)
        assert slim(first.model, example_inputs(), macs=0.7, record=first.record).record == both

    def test_a_record_that_is_not_the_network_s_is_refused(self) -> None:
        first = slim(randomized_network(Residual), example_inputs(), macs=0.7)
        with pytest.raises(RecordError, match='give the record of the cuts'):
            slim(randomized_network(Residual), example_inputs(), macs=0.7, record=first.record)
        with pytest.raises(ConfigError, match='record of slim is a list'):
            slim(first.model, example_inputs(), macs=0.7, record=[first.record])


class TestNothingToPrune:
    def test_the_reason_is_reported(self) -> None:
        net = nn.Sequential(nn.BatchNorm2d(3), nn.Flatten())
        with pytest.raises(
            EasyPrunerError, match=r'no channel of this Sequential.*: 6 at 0, an input'
        ):
            slim(net, example_inputs(), macs=0.5)
        with pytest.raises(
            EasyPrunerError, match=r'no channel of this Plain.*: 12 at body.1.0, ignored, as'
        ):
            slim(
                randomized_network(Plain), example_inputs(), params=0.5, ignore=['body.0', 'body.1']
            )
        with pytest.raises(EasyPrunerError, match='it has no weights'):
            slim(nn.Flatten(), example_inputs(), params=0.5)

    def test_a_share_of_no_multiply_adds(self) -> None:
        class Looked(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.table, self.weight = nn.Embedding(10, 8), nn.Parameter(torch.randn(8))

            def forward(self, x: Tensor) -> Tensor:
                return (self.table(x) * self.weight).sum(dim=-1)

        words = torch.randint(0, 10, (2, 5))
        with pytest.raises(EasyPrunerError, match=r'macs=0\.5 of slim.*Looked has none'):
            slim(Looked(), words, macs=0.5)
        assert slim(Looked(), words, params=0.5).model.table.embedding_dim == 4


class TestLimits:
    def test_all_limits_are_met(self) -> None:
        slimmed = slim(
            randomized_network(Residual),
            example_inputs(),
            macs=0.9,
            params=0.4,
            budget=dict(type='Ratio', keep=0.8),
        )
        summary = slimmed.summary
        assert summary.after.macs <= 0.9 * summary.before.macs
        assert summary.after.params <= 0.4 * summary.before.params
        assert summary.units[1] <= round(0.8 * summary.units[0])
        assert [limit.kind for limit in summary.budget.each] == ['Macs', 'Params', 'Ratio']

    def test_a_limit_above_one_is_the_number_itself(self) -> None:
        whole = traced_network(Plain).cost().params
        slimmed = slim(randomized_network(Plain), example_inputs(), params=whole // 2)
        assert slimmed.summary.after.params <= whole // 2
        assert slimmed.summary.budget.asked == whole // 2

    def test_numbers_of_numpy_are_accepted(self) -> None:
        whole = traced_network(Plain).cost()
        slimmed = slim(
            randomized_network(Plain),
            example_inputs(),
            macs=np.float32(0.5),
            params=np.int64(whole.params),
        )
        assert slimmed.summary.after.macs <= whole.macs // 2
        assert [limit.asked for limit in slimmed.summary.budget.each] == [0.5, whole.params]

    def test_a_budget_may_be_built_and_is_not_changed(self) -> None:
        budget = build(BUDGETS, dict(type='Macs', keep=0.5))
        before = dict(vars(budget))
        source = build(MASK_SOURCES, dict(type='L2Norm'))
        slimmed = slim(randomized_network(Plain), example_inputs(), source=source, budget=[budget])
        assert slimmed.summary.source == 'L2Norm'
        assert slimmed.summary.after.macs <= 0.5 * slimmed.summary.before.macs
        assert source.budget is None and vars(budget) == before

    def test_a_budget_of_one_removes_nothing_and_reports_it(self) -> None:
        model = randomized_network(Residual)
        slimmed = slim(model, example_inputs(), macs=1)
        assert torch.equal(slimmed.model(example_inputs()), model(example_inputs()))
        assert slimmed.summary.whole == dict.fromkeys(
            trace(model, example_inputs()).groups, 'scores'
        )

    def test_a_budget_of_zero_reports_what_is_feasible(self) -> None:
        with pytest.raises(BudgetError, match='lowest possible'):
            slim(randomized_network(Plain), example_inputs(), macs=0)

    def test_groups_that_limits_keep_are_named(self) -> None:
        slimmed = slim(
            randomized_network(Plain),
            example_inputs(),
            macs=0.5,
            limits={'body.1.0': Limits(max_removed=0)},
        )
        assert slimmed.summary.whole == {'body.1.0': 'limits'}
        assert '1 of 2 groups lost nothing: body.1.0 (limits)' in str(slimmed)

    def test_ignored_modules_stay(self) -> None:
        slimmed = slim(randomized_network(Plain), example_inputs(), macs=0.6, ignore='body.0')
        assert slimmed.model.body[0][0].out_channels == 8
        assert slimmed.model.body[1][0].out_channels < 12


class TestBatches:
    def test_a_source_gets_them_and_the_cross_entropy(self) -> None:
        model, batches = randomized_network(Plain), tiny_batches()
        source = Asking()
        slim(model, example_inputs(), source=source, batches=batches, seed=5)
        # The copy of the source shares its list.
        context, *losses = source.calls
        expected = [nn.functional.cross_entropy(model(x), y).item() for x, y in batches]
        assert losses == pytest.approx(expected)
        assert context.seed == 5 and context.evaluate is None

    def test_a_loss_and_batches_of_ones_own(self) -> None:
        source = Asking()
        slim(
            randomized_network(Plain),
            example_inputs(),
            source=source,
            batches=lambda: iter([dict(x=example_inputs())]),
            loss=lambda model, batch: model(**batch).sum() * 0 + 3,
        )
        assert source.calls[1:] == [3.0]

    def test_statistics_are_those_of_the_pruned_network(self) -> None:
        model, batches = randomized_network(Plain), tiny_batches()
        slimmed = slim(model, example_inputs(), macs=0.4, batches=batches)
        left = slim(model, example_inputs(), macs=0.4, batches=batches, calibration_batches=0)
        first = slimmed.model.body[0]
        means = [first[0](x).mean(dim=(0, 2, 3)) for x, _ in batches]
        torch.testing.assert_close(first[1].running_mean, torch.stack(means).mean(dim=0))
        kept = torch.isin(model.body[0][1].running_mean, left.model.body[0][1].running_mean)
        assert kept.sum() == left.model.body[0][1].num_features

    def test_only_as_many_as_requested(self) -> None:
        opened = []

        def batches() -> Iterator[Any]:
            for batch in tiny_batches(3):
                opened.append(batch)
                yield batch

        slim(
            randomized_network(Plain),
            example_inputs(),
            macs=0.5,
            batches=batches,
            calibration_batches=2,
        )
        assert len(opened) == 2

    def test_several_inputs(self) -> None:
        inputs = dict(image=torch.randn(2, 3, 8, 8), depth=torch.randn(2, 1, 8, 8))
        torch.manual_seed(0)
        slimmed = slim(TwoInputs().eval(), inputs, macs=0.6, batches=[inputs, inputs])
        assert slimmed.summary.verification.passed
        assert slimmed.model(**inputs)['logits'].shape == (2, 5)

    @pytest.mark.parametrize(
        ('batches', 'text'),
        [
            (iter([]), 'only once'),
            (3, 'batches=3'),
            ([], 'the data set is empty'),
            ([example_inputs()], 'a loss needs targets'),
            ([(example_inputs(), torch.zeros(2, 5))], 'targets are a float32 tensor'),
        ],
    )
    def test_unknown_values_are_refused(self, batches: Any, text: str) -> None:
        with pytest.raises(EasyPrunerError, match=text):
            slim(randomized_network(Plain), example_inputs(), source=Asking(), batches=batches)

    def test_a_source_that_needs_them_reports_it(self) -> None:
        with pytest.raises(ConfigError, match=r'a test needs batches.*easypruner\.slim'):
            slim(randomized_network(Plain), example_inputs(), source=Asking())


@pytest.mark.parametrize(
    ('arguments', 'text'),
    [
        (dict(source='L1Nrom', macs=0.5), "did you mean 'L1Norm'"),
        (dict(), 'slim has no limit; give macs=0.5'),
        (dict(macs=-1), 'macs=-1'),
        (dict(macs='half'), "macs='half'"),
        (dict(macs=0.5, source=dict(type='L1Norm', budget=dict(type='Macs', keep=0.5))), 'own'),
        (dict(macs=0.5, budget=dict(type='Rato', keep=0.5)), r"budget\[1\].*'Ratio'"),
        (dict(macs=0.5, calibration_batches=-1), 'calibration_batches=-1'),
        (dict(macs=0.5, ignore='bdoy'), 'bdoy'),
        (dict(macs=True), 'macs=True'),
        (dict(macs=float('nan')), 'macs=nan'),
        (dict(macs=0.5, seed='a'), "seed='a'"),
        (dict(macs=0.5, seed=-1), 'seed=-1'),
        (dict(macs=0.5, seed=None), 'seed=None'),
        (dict(macs=0.5, evaluate=90.0), r'evaluate=90\.0 of slim; expected a function'),
        (dict(macs=0.5, evaluate=lambda model: None), 'evaluate of slim returns None'),
        (dict(macs=0.5, forward=3), 'forward=3'),
        (dict(macs=0.5, loss='mse'), "loss='mse'"),
        (dict(macs=0.5, loss=nn.MSELoss), r'the class MSELoss; build it, as in MSELoss\(\)'),
    ],
)
def test_mistakes_are_reported(arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(EasyPrunerError, match=text):
        slim(randomized_network(Plain), example_inputs(), **arguments)


def test_the_same_seed_gives_the_same_network() -> None:
    one, again, other = (
        slim(
            randomized_network(Residual), example_inputs(), macs=0.5, source='Random', seed=seed
        ).record
        for seed in (1, 1, 2)
    )
    assert one == again != other


def test_a_network_without_values_is_reported() -> None:
    with torch.device('meta'):
        model = Plain()
    with pytest.raises(TraceError, match='on the meta device'):
        slim(model, example_inputs(), macs=0.5, verify=False)


def test_a_lazy_network_is_reported() -> None:
    model = nn.Sequential(nn.LazyConv2d(8, 3), nn.ReLU(), nn.LazyConv2d(4, 1))
    with pytest.raises(TraceError, match=r"'0\.weight' has no shape yet .* run the model once"):
        slim(model, torch.rand(1, 3, 8, 8), macs=0.5)


@pytest.mark.parametrize(
    ('inputs', 'advice'),
    [
        (np.zeros((1, 3, 8, 8), dtype=np.float32), 'from_numpy'),
        ({'x': np.zeros((1, 3, 8, 8))}, 'from_numpy'),
        ([1, 3, 8, 8], r'torch\.rand\(1, 3, 8, 8\)'),
        ('image.png', 'the example inputs are a str, without a tensor'),
    ],
)
def test_example_inputs_without_a_tensor_are_explained(inputs: Any, advice: str) -> None:
    with pytest.raises(TraceError, match=advice) as caught:
        slim(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1)), inputs, macs=0.5)
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize('given', [Plain, randomized_network, None, 'resnet18'])
def test_a_value_that_is_not_a_network_is_refused(given: Any) -> None:
    with pytest.raises(TraceError, match=r'expected a torch\.nn\.Module'):
        slim(given, example_inputs(), macs=0.5)


def test_a_slimmed_result_is_not_a_network_but_has_one() -> None:
    with pytest.raises(TraceError, match=r'a Slimmed; .* give its \.model'):
        slim(
            slim(randomized_network(Plain), example_inputs(), macs=0.5), example_inputs(), macs=0.5
        )


def test_weights_that_have_a_history_are_copied() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1))
    net.held = [net[0].weight * 1]
    assert slim(net, example_inputs(), macs=0.5).model[0].out_channels == 4


class Drawing(MaskSource):
    """Draws its scores from the global generator."""

    def score(self, graph: ChannelGraph, context: Context) -> dict[str, Tensor]:
        return {name: torch.rand(group.size) for name, group in graph.groups.items()}


def test_it_neither_depends_on_the_caller_s_generator_nor_draws_from_it() -> None:
    model = randomized_network(Residual)
    records = []
    for before in (3, 4):
        torch.manual_seed(before)
        expected = torch.rand(4)
        torch.manual_seed(before)
        slimmed = slim(model, example_inputs(), macs=0.5, source=Drawing(), batches=tiny_batches())
        records.append(slimmed.record)
        assert torch.equal(torch.rand(4), expected)
    assert records[0] == records[1]
