"""Tests of easypruner/graph/recording/outputs.py: which outputs hold channels."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import easypruner
from easypruner.errors import ConfigError


class Detector(nn.Module):
    """Returns features of two levels beside its boxes; in training, the features alone."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.neck = nn.Conv2d(8, 12, 3, padding=1)
        self.head = nn.Conv2d(12, 4, 1)

    def forward(self, x: Tensor) -> Any:
        low = self.stem(x).relu()
        high = self.neck(low).relu()
        return self.head(high), {'feats': [low, high], 'scores': self.head(high).sigmoid()}


def _units(outputs: Any) -> dict[str, int]:
    net = Detector()
    graph = easypruner.trace(net, torch.randn(1, 3, 6, 6), outputs=outputs)
    return {name: group.size for name, group in graph.groups.items()}


@pytest.mark.parametrize(
    'outputs',
    [
        0,
        '[0]',
        ['0', '1.scores'],
        "[1]['scores']",
        '*.scores',
        lambda output: output[0],
        lambda output: (output[0], output[1]['scores']),
    ],
)
def test_channels_of_outputs_that_do_not_count_can_go(outputs: Any) -> None:
    assert _units(outputs) == {'stem': 8, 'neck': 12}


@pytest.mark.parametrize(
    ('outputs', 'left'),
    [(None, {}), ('1', {}), ("[1]['feats'][0]", {'neck': 12}), (lambda out: out[1]['feats'], {})],
)
def test_an_output_that_counts_holds_its_channels(outputs: Any, left: dict[str, int]) -> None:
    found = _units(outputs)
    assert {name: size for name, size in found.items() if name != 'head'} == left


def test_a_cut_is_verified_on_the_outputs_that_count() -> None:
    net, x = Detector(), torch.randn(2, 3, 6, 6)
    slimmed = easypruner.slim(net, x, params=0.5, outputs=[0, '1.scores'], limits={'round_to': 1})
    boxes, others = slimmed.model(x)
    assert boxes.shape == net(x)[0].shape
    assert others['feats'][1].shape[1] < 12
    graph = easypruner.trace(net, x, outputs=0)
    masks = {'stem': torch.arange(8) > 1, 'neck': torch.arange(12) > 2}
    assert easypruner.verify(net, masks, x, graph=graph).passed
    assert easypruner.verify(net, masks, x, outputs=0).passed


def test_a_call_that_returns_something_else_keeps_all_of_it() -> None:
    net, x = Detector(), torch.randn(1, 3, 6, 6)
    graph = easypruner.trace(
        net, x, outputs='1.scores', calls=[lambda model: model.stem(torch.randn(1, 3, 4, 4))]
    )
    assert list(graph.groups) == ['neck']


@pytest.mark.parametrize(
    ('outputs', 'message'),
    [
        ('1.score', r"outputs has '1\.score', which is not an output; did you mean '1\.scores'\?"),
        ([], 'expected the name of an output'),
        (2.5, 'expected the name of an output'),
        (lambda output: output.logits, 'fails on the output of the model, .*logits'),
        (lambda output: output[0] + 1, r'computed; expected tensors that the model returns: \[0\]'),
        (lambda output: None, 'returns no tensor'),
    ],
)
def test_outputs_that_do_not_fit_are_refused(outputs: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        _units(outputs)
