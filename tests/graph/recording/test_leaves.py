"""Leaves: a pass with them runs the operations that torch itself comes to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from easypruner.graph.recording.inventory import StandIns
from easypruner.graph.recording.leaves import leaf_of, make_call, note_drops
from easypruner.graph.recording.tape import Tape, record
from easypruner.graph.recording.values import Watcher

_LAYERS: list[Callable[[], nn.Module]] = [
    lambda: nn.Conv2d(8, 4, 3, stride=2, padding=1),
    lambda: nn.Conv2d(8, 8, (3, 1), dilation=2, groups=8, bias=False),
    lambda: nn.Conv2d(8, 4, 3, padding='same'),
    lambda: nn.Conv2d(8, 4, 3, padding=1, padding_mode='circular'),
    lambda: nn.BatchNorm2d(8),
    lambda: nn.BatchNorm2d(8, momentum=None),
    lambda: nn.BatchNorm2d(8, affine=False),
    lambda: nn.BatchNorm2d(8, track_running_stats=False),
    *(
        lambda kind=kind, inplace=inplace: kind(inplace=inplace)
        for kind in (nn.ReLU, nn.ReLU6, nn.SiLU, nn.Hardswish, nn.Hardsigmoid)
        for inplace in (False, True)
    ),
    lambda: nn.Sigmoid(),
    lambda: nn.AdaptiveAvgPool2d(1),
    lambda: nn.AdaptiveAvgPool2d((1, 1)),
    lambda: nn.AdaptiveAvgPool2d(2),
    lambda: nn.Dropout(0.5),
    lambda: nn.Identity(),
]


def _record(model: Any, x: Tensor, training: bool = False) -> Tape:
    return record(StandIns(model), x, training)


def _describe(tape: Tape) -> list[object]:
    """Return the operations, with tensors as the numbers of their first use, shapes and strides."""
    numbers: dict[int, int] = {}

    def show(value: object) -> object:
        if isinstance(value, Tensor):
            number = numbers.setdefault(id(value), len(numbers))
            return number, tuple(value.shape), value.stride(), value.dtype
        return [show(item) for item in value] if isinstance(value, list | tuple) else value

    return [
        (op.func, op.module, show(op.args), sorted(op.kwargs.items()), show(op.outputs))
        for op in tape.operations
    ]


_CASES = [(torch.contiguous_format, False), (torch.channels_last, False)]


@pytest.mark.parametrize(('layout', 'training'), [*_CASES, (torch.contiguous_format, True)])
def test_the_operations_are_those_of_torch(
    layout: torch.memory_format, training: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = nn.ModuleList(make() for make in _LAYERS)
    model.forward = lambda x: [layer(x + 1) for layer in model]
    x = torch.zeros(2, 8, 6, 6).to(memory_format=layout)
    with_leaves = _describe(_record(model, x, training))
    monkeypatch.setattr(Watcher, 'takes_leaves', False)
    assert _describe(_record(model, x, training)) == with_leaves


def test_a_leaf_is_handed_over_without_its_forward(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nn.Conv2d, 'forward', None)
    tape = _record(nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU()), torch.zeros(1, 3, 2, 2))
    assert [op.name for op in tape.operations] == ['convolution', 'relu']


def test_a_layer_with_a_hook_or_code_of_its_own_is_called() -> None:
    class Doubled(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * 2

    hooked, patched = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
    hooked.register_forward_hook(lambda layer, args, output: output.sin())
    patched.forward = lambda x: x.cos()
    tape = _record(nn.Sequential(hooked, patched, Doubled(3, 3, 1)), torch.zeros(1, 3, 2, 2))
    assert [op.name for op in tape.operations] == [
        'convolution',
        'sin',
        'cos',
        'convolution',
        'mul',
    ]


def test_without_a_watcher_a_leaf_is_called() -> None:
    layer = nn.ReLU()
    call = make_call(layer, leaf_of(nn.ReLU), '', [])
    assert call(torch.tensor([-1.0, 2.0])).tolist() == [0.0, 2.0]


class Halves(nn.Module):
    """Is said to do nothing in evaluation mode, which shows that it is not called there."""

    def forward(self, x: Tensor) -> Tensor:
        return x / 2


@pytest.mark.parametrize('training', [False, True])
def test_a_layer_that_a_plugin_names_is_called_in_training_only(training: bool) -> None:
    note_drops(f'{Halves.__module__}.{Halves.__qualname__}')
    tape = _record(nn.Sequential(Halves(), nn.ReLU()), torch.zeros(1, 3, 2, 2), training)
    assert [op.name for op in tape.operations] == (['div', 'relu'] if training else ['relu'])
