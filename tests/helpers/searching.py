"""What tests of searches share: a loss that is known for all widths, and interruptions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from easypruner import Context, Masks, MaskSource
from easypruner.graph import ChannelGraph
from easypruner.strategies.sources.candidates import RECORDS
from easypruner.testing import tiny_context
from easypruner.testing.networks import Plain
from tests.helpers.networks import traced_network

Widths = tuple[int, int]


def plain_graph() -> ChannelGraph:
    return traced_network(Plain)


def widths_of(masks: Masks) -> Widths:
    return masks.kept('body.0.0'), masks.kept('body.1.0')


class KnownLoss:
    """A training loss that is a function of the widths, and records its calls."""

    def __init__(self, loss: Callable[[Widths], float], stop_after: int | None = None) -> None:
        self.asked: list[Widths] = []
        self._loss, self._stop_after = loss, stop_after

    def __call__(self, model: nn.Module, batch: object) -> Tensor:
        widths = model.body[0][0].out_channels, model.body[1][0].out_channels
        if len(self.asked) == self._stop_after:
            raise KeyboardInterrupt
        self.asked.append(widths)
        return torch.tensor(self._loss(widths))


def known_loss(
    loss: Callable[[Widths], float], folder: Path | None = None, stop_after: int | None = None
) -> tuple[Context, KnownLoss]:
    """Return a context with such a loss, and the loss."""
    measured = KnownLoss(loss, stop_after)
    return replace(tiny_context(), loss=measured, folder=folder), measured


def loss_least_at_seven(widths: Widths) -> float:
    """Return a loss that is least at 7 channels of the first layer."""
    return (widths[0] - 7.2) ** 2 + 0.01 * widths[1]


def check_resume(make: Callable[[], MaskSource], folder: Path) -> None:
    """Stop a search after each number of candidates, and let it go on."""
    graph = plain_graph()
    context, whole = known_loss(loss_least_at_seven, folder / 'whole')
    expected = make().select(graph, context)
    lines = (folder / 'whole' / RECORDS).read_text()
    assert len(whole.asked) > 3
    for stop in range(len(whole.asked)):
        stopped = folder / str(stop)
        context, before = known_loss(loss_least_at_seven, stopped, stop)
        with pytest.raises(KeyboardInterrupt):
            make().select(graph, context)
        context, after = known_loss(loss_least_at_seven, stopped)
        assert make().select(graph, context) == expected
        assert before.asked + after.asked == whole.asked
        assert (stopped / RECORDS).read_text() == lines
