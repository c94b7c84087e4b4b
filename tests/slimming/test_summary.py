"""The summary of a result of slim()."""

from __future__ import annotations

import json

import torch
from torch import Tensor, nn

from easypruner import Context, Masks, MaskSource, slim
from easypruner.graph import ChannelGraph
from easypruner.testing import example_inputs, randomized_network, tiny_batches
from easypruner.testing.networks import Plain, Residual


class TestSummary:
    def test_it_prints_itself(self) -> None:
        slimmed = slim(
            randomized_network(Plain), example_inputs(), macs=0.5, evaluate=lambda model: 12.5
        )
        lines = str(slimmed).splitlines()
        assert lines[0] == 'Plain, pruned by L1Norm'
        (macs,) = (line for line in lines if line.startswith('MACs'))
        left = slimmed.summary.after.macs / slimmed.summary.before.macs
        assert macs.endswith(f'{100 * left:.1f} %')
        assert any(
            line.split() == ['accuracy', '12.50', '%', '12.50', '%', '+0.00'] for line in lines
        )
        assert f'budget Macs: asked 0.5, delivered {left:.4g}' in lines
        assert any(line.startswith('verified: ') for line in lines)
        assert 'frozen channels: 5 at head, an output of the model' in str(slimmed)

    def test_accuracies_are_of_the_full_and_of_the_pruned_network(self) -> None:
        def widths(model: nn.Module) -> float:
            return float(model.body[0][0].out_channels)

        slimmed = slim(randomized_network(Plain), example_inputs(), macs=0.3, evaluate=widths)
        assert slimmed.summary.accuracy == (8.0, widths(slimmed.model))
        assert widths(slimmed.model) < 8

    def test_an_accuracy_is_that_of_evaluation_mode_and_leaves_no_trace(self) -> None:
        """The function can change modes."""
        seen = []

        def evaluate(model: nn.Module) -> float:
            seen.append([module.training for module in model.modules()])
            model(example_inputs())
            model.train(not any(seen[0]) and len(seen) > 1)
            return 50

        for training in (True, False):
            seen.clear()
            model = randomized_network(Plain).train(training)
            model.head.train(not training)
            plain = slim(model, example_inputs(), macs=0.5)
            slimmed = slim(model, example_inputs(), macs=0.5, evaluate=evaluate)
            assert len(seen) == 2 and not any(map(any, seen))
            expected = plain.model.state_dict()
            assert all(torch.equal(t, expected[n]) for n, t in slimmed.model.state_dict().items())
            assert [m.training for m in slimmed.model.modules()] == [
                m.training for m in model.modules()
            ]

    def test_a_source_evaluates_in_evaluation_mode(self) -> None:
        found = []

        class Evaluating(MaskSource):
            def select(self, graph: ChannelGraph, context: Context) -> Masks:
                found.append(context.evaluate(graph.model))
                return Masks({})

        model = randomized_network(Plain).train()
        slim(model, example_inputs(), source=Evaluating(), evaluate=lambda m: 10.0 * m.training)
        assert found == [0.0]

    def test_a_cut_of_constant_outputs_is_not_claimed_to_be_verified(self) -> None:
        model = randomized_network(Plain)
        nn.init.zeros_(model.head.weight)
        slimmed = slim(model, example_inputs(), macs=0.5)
        assert slimmed.summary.verification.constant
        assert 'not checked: the outputs are constant' in str(slimmed)
        assert 'erified' not in str(slimmed)

    def test_mixed_channels_are_not_claimed_to_be_verified(self) -> None:
        net = nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 5))
        text = str(slim(net, torch.randn(2, 6), macs=0.5))
        assert 'not checked, because their channels are mixed: 0' in text and 'erified' not in text

    def test_equal_scores_are_reported(self) -> None:
        model = randomized_network(Plain)
        nn.init.zeros_(model.head.weight)
        slimmed = slim(model, example_inputs(), macs=0.5, source='Taylor', batches=tiny_batches())
        assert slimmed.summary.level == 0.0
        assert 'the choice is arbitrary: every channel has the same score, 0;' in str(slimmed)
        for arguments in (dict(macs=1, source=Equal()), dict(macs=0.5)):
            slimmed = slim(model, example_inputs(), **arguments)
            assert slimmed.summary.level is None and 'arbitrary' not in str(slimmed)

    def test_it_is_short_in_a_session(self) -> None:
        slimmed = slim(
            randomized_network(Plain), example_inputs(), budget=dict(type='Ratio', keep=0.5)
        )
        assert repr(slimmed) == 'Slimmed(Plain: 10 of 20 channels left)'

    def test_json_can_hold_it(self) -> None:
        summary = slim(randomized_network(Residual), example_inputs(), macs=0.5).summary
        content = json.loads(json.dumps(summary.to_dict()))
        assert content['after'] == {
            'macs': summary.after.macs,
            'params': summary.after.params,
            'activations': summary.after.activations,
        }
        assert content['budget']['kind'] == 'Macs'

    def test_a_check_that_was_not_requested_is_not_claimed(self) -> None:
        slimmed = slim(randomized_network(Plain), example_inputs(), macs=0.5, verify=False)
        assert slimmed.summary.verification is None
        assert 'verified' not in str(slimmed)


class Equal(MaskSource):
    """Gives every unit the same score."""

    def score(self, graph: ChannelGraph, context: Context) -> dict[str, Tensor]:
        return {name: torch.ones(group.size) for name, group in graph.groups.items()}
