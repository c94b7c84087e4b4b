"""slim() with a caller's batches, forward passes and losses."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from easypruner import Context, Masks, MaskSource, Slimmed, slim
from easypruner.errors import ConfigError, EasyPrunerError
from easypruner.graph import ChannelGraph
from easypruner.testing import randomized_network
from easypruner.testing.networks import Plain


class Losing(MaskSource):
    """Keeps all channels, and records the loss on each batch."""

    def __init__(self) -> None:
        super().__init__()
        self.losses: list[float] = []

    def select(self, graph: ChannelGraph, context: Context) -> Masks:
        loss = context.needed('loss', 'a test')
        self.losses += [loss(graph.model, b).item() for b in context.some_batches(9, 'a test')]
        return Masks({})


class Two(nn.Module):
    """Takes two images, by position or by name."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.norm, self.head = nn.Conv2d(6, 8, 1), nn.BatchNorm2d(8), nn.Linear(8, 5)

    def forward(self, image: Tensor, other: Tensor, scaled: bool = False) -> Tensor:
        x = self.norm(self.body(torch.cat([image, other], dim=1)))
        return self.head(x.mean((2, 3)) * (0.5 if scaled else 1))


torch.manual_seed(0)
A, B, LABELS = torch.randn(4, 3, 8, 8), torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 2, 3])
NAMED = dict(image=A, other=B)


def two(inputs: Any, batches: Any, **arguments: Any) -> Slimmed:
    torch.manual_seed(0)
    return slim(Two().eval(), inputs, macs=0.5, batches=batches, **arguments)


def losses_of(model: nn.Module, inputs: Any, batches: Any, **arguments: Any) -> list[float]:
    source = Losing()
    slim(model, inputs, source=source, batches=batches, **arguments)
    return source.losses


@pytest.mark.parametrize(
    ('inputs', 'batch'),
    [
        ((A, B), (A, B)),
        ((A, B), [A, B]),
        ((A, B), ((A, B), LABELS)),
        ((A, B), [[A, B], LABELS]),
        ((A, B), NAMED),
        ((A, B), (NAMED, LABELS)),
        (NAMED, NAMED),
        (NAMED, (NAMED, LABELS)),
        (NAMED, dict(NAMED, labels=LABELS)),
        (dict(NAMED, scaled=False), NAMED),
    ],
)
def test_inputs_are_recognized_by_the_example_inputs(inputs: Any, batch: Any) -> None:
    """For every structure of a batch, the statistics are those of these two images."""
    slimmed = two(inputs, [batch])
    seen = slimmed.model.body(torch.cat([A, B], dim=1))
    torch.testing.assert_close(slimmed.model.norm.running_mean, seen.mean(dim=(0, 2, 3)))


@pytest.mark.parametrize(
    ('inputs', 'batches'),
    [
        (A, [(A, LABELS)]),
        (A, ([A, LABELS],)),
        ((A,), [(A, LABELS)]),
        ((A,), [((A,), LABELS)]),
        (A, DataLoader(TensorDataset(A, LABELS), batch_size=4)),
        (A, lambda: [(A, LABELS)]),
        ((A[:1],), [(dict(x=A), LABELS)]),
    ],
)
def test_pairs_of_one_input(inputs: Any, batches: Any) -> None:
    model = randomized_network(Plain)
    expected = functional.cross_entropy(model(A), LABELS).item()
    assert losses_of(model, inputs, batches) == pytest.approx([expected])


def test_batches_may_have_dimensions_that_the_example_lacks() -> None:
    net = nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 5))
    rows = torch.randn(2, 7, 6)
    losses = losses_of(
        net, torch.randn(6), [rows], loss=lambda model, batch: model(batch).mean().detach()
    )
    assert losses == pytest.approx([net(rows).mean().item()])


def test_the_default_loss_of_two_inputs() -> None:
    torch.manual_seed(0)
    model = Two().eval()
    for inputs in ((A, B), NAMED, (A, B, True), dict(NAMED, scaled=True)):
        args, names = ((), inputs) if isinstance(inputs, dict) else (inputs, {})
        expected = functional.cross_entropy(model(*args, **names), LABELS).item()
        assert losses_of(model, inputs, [(inputs, LABELS)]) == pytest.approx([expected])
        if names:
            # A flag of the example inputs applies to all batches.
            assert losses_of(model, inputs, [(NAMED, LABELS)]) == pytest.approx([expected])
    with pytest.raises(ConfigError, match='inputs without targets'):
        losses_of(model, (A, B), [(A, B)])


@pytest.mark.parametrize(
    'loss',
    [
        nn.CrossEntropyLoss(label_smoothing=0.1),
        partial(functional.cross_entropy, label_smoothing=0.1),
        lambda model, batch: functional.cross_entropy(
            model(batch[0]), batch[1], label_smoothing=0.1
        ),
    ],
)
def test_a_loss_is_of_a_network_and_a_batch_or_one_of_torch_s(loss: Any) -> None:
    model = randomized_network(Plain)
    expected = functional.cross_entropy(model(A), LABELS, label_smoothing=0.1).item()
    assert losses_of(model, A, [(A, LABELS)], loss=loss) == pytest.approx([expected])
    assert losses_of(model, A, [(A, LABELS)], loss=functional.cross_entropy) == pytest.approx(
        [functional.cross_entropy(model(A), LABELS).item()]
    )


class TestForward:
    def test_it_runs_the_network_on_a_batch_that_is_built_in_another_way(self) -> None:
        sample = dict(pixels=[A, B], labels=LABELS)
        slimmed = two((A, B), [sample], forward=lambda model, batch: model(*batch['pixels']))
        expected = two((A, B), [(A, B)])
        assert slimmed.record == expected.record
        assert torch.equal(slimmed.model.norm.running_mean, expected.model.norm.running_mean)

    def test_its_outputs_are_those_that_the_loss_is_of(self) -> None:
        model = randomized_network(Plain)
        expected = functional.cross_entropy(2 * model(A), LABELS).item()
        for loss in (None, nn.CrossEntropyLoss()):
            losses = losses_of(
                model, A, [(dict(pixels=A), LABELS)], loss=loss,
                forward=lambda model, batch: 2 * model(batch[0]['pixels']),
            )  # fmt: skip
            assert losses == pytest.approx([expected])

    def test_gradients_reach_the_loss(self) -> None:
        slimmed = slim(
            randomized_network(Plain), A, macs=0.5, source='Taylor', batches=[(A, LABELS)],
            forward=lambda model, batch: model(batch[0]),
        )  # fmt: skip
        assert slimmed.summary.level is None

    def test_batches_for_a_loss_alone_are_not_checked(self) -> None:
        def loss(model: nn.Module, batch: Any) -> Tensor:
            return model(batch[0]).sum()

        batches = [(A, LABELS, LABELS)]
        assert losses_of(randomized_network(Plain), A, batches, loss=loss, calibration_batches=0)
        with pytest.raises(ConfigError, match='neither inputs'):
            losses_of(randomized_network(Plain), A, batches, loss=loss)

    def test_other_inputs_that_a_network_cannot_take_are_reported(self) -> None:
        batches = [dict(x=A, labels=LABELS)]
        with pytest.raises(ConfigError, match=r"Plain fails on .*'labels'.* give forward="):
            slim(randomized_network(Plain), A, macs=0.5, batches=batches)


@pytest.mark.parametrize(
    ('inputs', 'batches', 'text'),
    [
        (A, (A, LABELS), r'one pair or two batches; give a list: \[\(inputs, targets\)\]'),
        (A, [A, LABELS], r'a batch of slim is an int64 tensor of shape \(4,\), neither inputs'),
        (
            A,
            A,
            r'a float32 tensor of shape \(4, 3, 8, 8\); give a single batch as a list',
        ),
        (A, NAMED, r'give a single batch as a list'),
        (A, 'digits', r'batches of slim is a str'),
        (A, nn.Identity(), r'batches=Identity\(\)'),
        (A, lambda: 5, 'the function batches of slim returns an int'),
        (A, [(A, A, LABELS)], r'\(a float32 .*\), neither inputs .* give forward='),
        ((A, B), [(A, LABELS)], 'neither inputs'),
        ((A, B), [(A, B, LABELS)], 'neither inputs'),
        ((A, B), [A], 'neither inputs'),
        (NAMED, [dict(image=A)], r"is a dict \{'image': .*neither inputs"),
        (NAMED, [(A, B)], 'neither inputs'),
    ],
)
def test_batches_that_are_not_understood(inputs: Any, batches: Any, text: str) -> None:
    """They are reported before anything is selected, where possible."""
    calls: list[Any] = []

    class Noting(Losing):
        def select(self, graph: ChannelGraph, context: Context) -> Masks:
            calls.append(graph)
            list(context.some_batches(9, 'a test'))
            return Masks({})

    torch.manual_seed(0)
    model = randomized_network(Plain) if inputs is A else Two().eval()
    with pytest.raises(ConfigError, match=text):
        slim(model, inputs, source=Noting(), batches=batches)
    assert not calls or callable(batches)


def test_bad_batches_of_a_data_loader_are_reported_when_they_are_read() -> None:
    loader = DataLoader(TensorDataset(A, B, LABELS), batch_size=4)
    with pytest.raises(ConfigError, match=r'\[a float32 tensor .*neither inputs'):
        two((A, B), loader)


def test_inputs_that_the_network_fails_on_are_reported() -> None:
    with pytest.raises(ConfigError, match=r'Plain fails on a uint8 tensor .*expected inputs like'):
        slim(randomized_network(Plain), A, macs=0.5, batches=[(A.byte(), LABELS)])


@pytest.mark.parametrize(
    ('loss', 'text'),
    [
        (lambda outputs, targets: outputs.log(), 'gets these, not outputs and targets'),
        (lambda batch: 0, 'gets these, not outputs and targets'),
        (nn.NLLLoss(torch.ones(4)), r'loss=NLLLoss of slim fails on .*float32.*int64'),
        (lambda model, batch: model(batch[0]).mean(dim=1), 'shape'),
        (lambda model, batch: 3.0, 'float'),
    ],
)
def test_invalid_losses(loss: Any, text: str) -> None:
    with pytest.raises(EasyPrunerError, match=text):
        slim(
            randomized_network(Plain),
            A,
            macs=0.5,
            source='Taylor',
            batches=[(A, LABELS)],
            loss=loss,
        )
