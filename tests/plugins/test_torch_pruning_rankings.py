"""Rankings of ResNet-18's channels against Torch-Pruning's, or why they differ.

Hessian, Synflow and Random have no counterpart: what Torch-Pruning calls Hessian is the empirical
Fisher information, and is compared with Fisher.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from easypruner_plugins.bn_scale import BNScale
from easypruner_plugins.fisher import Fisher
from easypruner_plugins.fpgm import FPGM
from easypruner_plugins.group import Group
from easypruner_plugins.lamp import Lamp
from easypruner_plugins.lp_norm import L1Norm, L2Norm
from easypruner_plugins.taylor import Taylor
from scipy.stats import spearmanr
from torch import Tensor, nn

import easypruner
from easypruner import Context, MaskSource
from easypruner.graph import ChannelGraph
from tests.helpers.scoring import cross_entropy

tp = pytest.importorskip(
    'torch_pruning', reason="torch-pruning is not installed: pip install 'easypruner[bench]'"
)
pytestmark = pytest.mark.slow

GROUPS = ('conv1', 'layer2.0.conv1', 'layer2.0.conv2', 'layer4.0.conv2', 'layer4.1.conv1')
"""The stem with the additions behind it, a block's inside, two more additions of which the last is
read by the linear layer, and another inside."""
CONVOLUTIONS = [nn.modules.conv._ConvNd]
Change = Callable[[nn.Module], None]


def batch(size: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(size, 3, 64, 64, generator=generator).double()
    return images, torch.randint(0, 10, (size,), generator=generator)


def network(change: Change | None = None) -> nn.Module:
    from torchvision.models import resnet18

    torch.manual_seed(0)
    model = resnet18(num_classes=10).double().eval()
    if change is not None:
        with torch.no_grad():
            change(model)
    return model


def randomize_norms(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)


def ours(source: MaskSource, model: nn.Module, context: Context | None = None) -> dict[str, Tensor]:
    graph: ChannelGraph = easypruner.trace(model, torch.zeros(1, 3, 32, 32).double())
    return source.ranking_scores(graph, context or Context())


class Theirs:
    """Torch-Pruning's groups and importances of a model."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.dependencies = tp.DependencyGraph().build_dependency(
            model, example_inputs=torch.zeros(1, 3, 32, 32).double()
        )

    def __call__(self, importance: Any, name: str) -> Tensor:
        conv = self.model.get_submodule(name)
        group = self.dependencies.get_pruning_group(
            conv, tp.prune_conv_out_channels, idxs=list(range(conv.out_channels))
        )
        return importance(group)


def agreement(one: Tensor, other: Tensor) -> float:
    assert one.shape == other.shape and len(one.unique()) > 1
    return float(spearmanr(one.double().numpy(), other.double().numpy()).statistic)


def same() -> Any:
    """Ones, except for neighbours that swap because Torch-Pruning sums in single precision."""
    return pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize(
    ('source', 'importance'),
    [
        (
            L1Norm(reduction='first'),
            tp.importance.MagnitudeImportance(p=1, group_reduction='first', normalizer=None),
        ),
        (
            L2Norm(reduction='first'),
            tp.importance.MagnitudeImportance(p=2, group_reduction='first', normalizer=None),
        ),
        (L1Norm(over='group'), tp.importance.GroupMagnitudeImportance(p=1, bias=True)),
        (L2Norm(over='group'), tp.importance.GroupMagnitudeImportance(p=2, bias=True)),
        (Group(), tp.importance.GroupMagnitudeImportance(p=2, bias=True)),
        (Lamp(over='group'), tp.importance.LAMPImportance(bias=True)),
        (BNScale(), tp.importance.BNScaleImportance()),
    ],
    ids=['L1Norm', 'L2Norm', 'L1Norm group', 'L2Norm group', 'Group', 'Lamp', 'BNScale'],
)
def test_magnitudes(source: MaskSource, importance: Any) -> None:
    model = network(randomize_norms)
    scores, theirs = ours(source, model), Theirs(model)
    for name in GROUPS:
        assert agreement(scores[name], theirs(importance, name)) == same()


@pytest.mark.parametrize('source', [Group(), Lamp(over='group')])
def test_scores_themselves_are_the_same_where_both_normalize(source: MaskSource) -> None:
    model = network(randomize_norms)
    importance = (
        tp.importance.LAMPImportance(bias=True)
        if isinstance(source, Lamp)
        else tp.importance.GroupMagnitudeImportance(p=2, bias=True)
    )
    scores, theirs = ours(source, model), Theirs(model)
    for name in GROUPS:
        actual = theirs(importance, name)
        torch.testing.assert_close(scores[name].to(actual), actual, rtol=1e-3, atol=1e-6)


def distances(importance: Any, change: Change | None) -> list[float]:
    model = network(change)
    scores, theirs = ours(FPGM(reduction='first'), model), Theirs(model)
    return [agreement(scores[name], theirs(importance, name)) for name in GROUPS]


def test_distances_of_filters() -> None:
    """Torch-Pruning takes distances of |w|^p, the paper of w: equal where no weight is negative."""
    importance = tp.importance.FPGMImportance(p=1, group_reduction='first')

    def magnitudes(model: nn.Module) -> None:
        for parameter in model.parameters():
            parameter.abs_()

    assert distances(importance, magnitudes) == [same()] * len(GROUPS)
    assert max(distances(importance, None)) < 0.99


def scored(source: MaskSource, size: int) -> tuple[dict[str, Tensor], Theirs]:
    """Score a new network; return the scores, and Torch-Pruning's view after one backward."""
    model = network()
    context = Context(batches=lambda: [batch(size)], loss=cross_entropy)
    scores = ours(source, model, context)
    cross_entropy(model, batch(size)).backward()
    return scores, Theirs(model)


def test_gates() -> None:
    """A gate behind a norm without shift and mean equals one behind its layer."""
    scores, theirs = scored(Taylor(reduction='first'), 4)
    importance = tp.importance.TaylorImportance(
        multivariable=True, group_reduction='first', target_types=CONVOLUTIONS
    )
    for name in GROUPS:
        assert agreement(scores[name], theirs(importance, name)) == same()


def test_first_order_terms_of_weights() -> None:
    """Torch-Pruning adds up |g * w| where the paper adds up (g * w)^2, of the same products."""
    scores, theirs = scored(Taylor(form='weight', reduction='first'), 4)
    importance = tp.importance.TaylorImportance(
        group_reduction='first', target_types=CONVOLUTIONS, normalizer=None
    )
    for name in GROUPS:
        weight = theirs.model.get_submodule(name).weight
        products = (weight.detach() * weight.grad).flatten(1)
        actual = theirs(importance, name)
        torch.testing.assert_close(actual.double(), products.abs().sum(dim=1), rtol=1e-4, atol=0)
        assert agreement(scores[name], products.square().sum(dim=1)) == same()
        assert 0.8 < agreement(scores[name], actual) < 1 - 1e-4


@pytest.mark.parametrize('over', ['producers', 'group'])
def test_squared_gradients_of_a_sample(over: str) -> None:
    """Torch-Pruning's "Hessian" keeps the gradient of the last sample only, so there is one sample.

    Biases of norms, which it leaves out of a group, are zero in a new network.
    """
    scores, theirs = scored(Fisher(over=over, reduction='first'), 1)
    importance = tp.importance.HessianImportance(
        group_reduction='first' if over == 'producers' else 'mean'
    )
    importance.zero_grad()
    importance.accumulate_grad(theirs.model)
    for name in GROUPS:
        assert agreement(scores[name], theirs(importance, name)) == same()


@pytest.mark.filterwarnings('ignore:Using a non-full backward hook')
def test_squared_gradients_of_all_samples() -> None:
    model = network()
    context = Context(batches=lambda: [batch(4)], loss=cross_entropy)
    scores = ours(Fisher(reduction='first'), model, context)
    importance = tp.importance.OBDCImportance(group_reduction='first', num_classes=10)
    importance.eps = 0.0
    theirs = Theirs(model)
    # Its own pruner returns no group to this importance unless there is attention.
    pruner = SimpleNamespace(
        DG=theirs.dependencies,
        ignored_layers=[model.fc],
        root_module_types=[nn.Conv2d],
        _downstream_node_as_root_if_attention=lambda group: group,
    )
    importance._prepare_model(model, pruner)
    cross_entropy(model, batch(4)).backward()
    importance.step()
    for name in GROUPS:
        assert agreement(scores[name], theirs(importance, name)) == same()
