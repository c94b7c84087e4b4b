"""Tables that code makes itself: the anchors of a detector, the numbers of classes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import easypruner
from easypruner.testing import random_masks, randomized_network
from easypruner.testing.networks import block

X = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Anchors(nn.Module):
    """Keeps the centres of cells until its features have another shape, also another width."""

    def __init__(self) -> None:
        super().__init__()
        self.shape: torch.Size | None = None
        self.body, self.neck = block(3, 8), block(8, 6)
        self.boxes = nn.Conv2d(6, 4 * 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        features = self.neck(self.body(x))
        boxes = self.boxes(features)
        if self.shape != features.shape:
            self.shape = features.shape
            rows, columns = (torch.arange(size).type_as(x) + 0.5 for size in self.shape[2:])
            grid = torch.stack(torch.meshgrid(rows, columns, indexing='ij'), -1)
            self.centres = grid.view(-1, 2).transpose(0, 1)
        boxes = boxes.view(len(x), 4, 4, -1).mean(1)
        left, right = boxes.chunk(2, 1)
        return torch.cat([self.centres - left, self.centres + right], 1)


class Classes(nn.Module):
    """Adds to the sum of the scores that of the numbers of the classes."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.scores = block(3, 8), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        scores = self.scores(self.body(x).mean((2, 3)))
        return scores.sum(1) + torch.arange(scores.shape[1], device=x.device).sum()


@pytest.mark.parametrize('warm', [False, True])
def test_a_table_that_is_made_anew_for_another_width_freezes_nothing(warm: bool) -> None:
    model = randomized_network(Anchors)
    if warm:
        model(X)
    graph = easypruner.trace(model, X)
    assert {name: group.size for name, group in graph.groups.items()} == {'body.0': 8, 'neck.0': 6}
    masks = random_masks(graph)
    assert easypruner.verify(model, masks, X).passed
    wide = model(X)
    easypruner.prune(model, {'neck.0': torch.arange(6) != 2}, graph=graph)
    assert model(X).shape == wide.shape
    fresh = randomized_network(Anchors)
    easypruner.prune(fresh, {'neck.0': torch.arange(6) != 2}, example_inputs=X)
    assert torch.equal(model(X), fresh(X))


def test_channels_that_code_numbers_stay_for_that_reason() -> None:
    graph = easypruner.trace(randomized_network(Classes), X)
    assert list(graph.groups) == ['body.0']
    reasons = {entry.reason for entry in graph.frozen if entry.param.startswith('scores')}
    where = 'arange in the model itself'
    assert reasons == {f'a table made in the forward pass has an entry for each channel: {where}'}
