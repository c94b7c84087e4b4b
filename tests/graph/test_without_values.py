"""A network on the meta device: all that needs no values works, and all else says what to do."""

from __future__ import annotations

import pytest
import torch
from easypruner_plugins.bn_scale import BNScale
from easypruner_plugins.lp_norm import L1Norm
from easypruner_plugins.random_source import Random
from easypruner_plugins.ratio import Ratio
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

import easypruner
from easypruner import Context
from easypruner.errors import EasyPrunerError, TraceError


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
        self.neck = weight_norm(nn.Conv2d(8, 6, 1))
        self.head = nn.Linear(6 * 36, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.neck(self.body(x)).flatten(1))


X = torch.zeros(1, 3, 8, 8)


def build_empty(kind: type[nn.Module] = Net) -> nn.Module:
    with torch.device('meta'):
        return kind()


def test_what_needs_no_values_is_that_of_a_network_with_values() -> None:
    empty, real = build_empty(), Net()
    found, expected = easypruner.trace(empty, X), easypruner.trace(real, X)
    masks = {name: torch.arange(group.size) % 3 > 0 for name, group in expected.groups.items()}
    assert found.cost(masks) == expected.cost(masks) and found.frozen == expected.frozen
    assert str(found.plan(masks)) == str(expected.plan(masks))
    assert str(found.explain('neck.bias', 0, 2)) == str(expected.explain('neck.bias', 0, 2))
    optimizer = torch.optim.SGD(empty.parameters(), lr=0.1, momentum=0.9)
    for parameter in empty.parameters():
        optimizer.state[parameter]['momentum_buffer'] = torch.empty_like(parameter)
    records = [
        easypruner.prune(net, masks, graph=graph, optimizer=optimizer).to_json()
        for net, graph in ((empty, found), (real, expected))
    ]
    assert records[0] == records[1]
    cut, wanted = ({n: t.shape for n, t in net.state_dict().items()} for net in (empty, real))
    states = [optimizer.state[p]['momentum_buffer'].shape for p in empty.parameters()]
    assert states == [p.shape for p in empty.parameters()]
    assert cut == wanted and all(tensor.is_meta for tensor in empty.state_dict().values())


@pytest.mark.parametrize('source', [L1Norm(Ratio(0.5)), BNScale(Ratio(0.5))])
def test_scores_say_that_they_need_values(source: easypruner.MaskSource) -> None:
    graph = easypruner.trace(build_empty(), X)
    message = (
        f"{type(source).__name__} needs values, but 'body.0.weight' of the Net is on the meta "
        'device and has none; build the model on a real device'
    )
    with pytest.raises(EasyPrunerError, match=message):
        source.select(graph, Context())
    assert Random(Ratio(0.5)).select(graph, Context()).removed_units


class ReadsNumber(Net):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer('times', torch.tensor(2))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x * int(self.times))


def test_a_forward_pass_that_reads_a_number_names_it() -> None:
    with pytest.raises(TraceError, match="such as 'times' are on the meta device and have none"):
        easypruner.trace(build_empty(ReadsNumber), X)
