"""Histories of Torch-Pruning: the same cut as it made itself, and entries that fit no network."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import nn

import easypruner
from easypruner import Masks
from easypruner.errors import MaskError
from easypruner.strategies.sources.mask_files.contents import How
from easypruner.strategies.sources.mask_files.reading import read_masks
from easypruner.testing import example_inputs, randomized_network
from easypruner.testing.networks import Plain, Residual
from tests.helpers.networks import NETWORKS, Flattened, Grouped, traced_network

MODELS = torchvision.models


@pytest.mark.parametrize(
    'build',
    [
        Plain,
        Residual,
        pytest.param(MODELS.resnet18, marks=pytest.mark.slow),
        pytest.param(MODELS.densenet121, marks=pytest.mark.slow),
        pytest.param(MODELS.mobilenet_v2, marks=pytest.mark.slow),
        pytest.param(MODELS.resnext50_32x4d, marks=pytest.mark.slow),
        pytest.param(MODELS.efficientnet_b0, marks=pytest.mark.slow),
    ],
    ids=lambda build: build.__name__,
)
def test_a_copy_is_cut_as_torch_pruning_cut_the_network(
    build: Callable[[], nn.Module], tmp_path: Path
) -> None:
    tp = pytest.importorskip('torch_pruning', reason='torch-pruning is not installed')
    small = build in NETWORKS
    images = example_inputs().float() if small else torch.randn(1, 3, 64, 64)
    torch.manual_seed(0)
    theirs = (randomized_network(build).float() if small else build()).eval()
    ours = copy.deepcopy(theirs)
    last = [m for m in theirs.modules() if isinstance(m, nn.Linear)][-1]
    pruner = tp.pruner.MagnitudePruner(
        theirs,
        images,
        importance=tp.importance.MagnitudeImportance(p=1),
        pruning_ratio=0.5,
        iterative_steps=2,
        ignored_layers=[last],
    )
    pruner.step()
    pruner.step()
    history = pruner.pruning_history()
    assert history
    # As in its own example, and by itself in JSON.
    torch.save({'model': theirs.state_dict(), 'pruning': history}, tmp_path / 'history.pth')
    (tmp_path / 'history.json').write_text(json.dumps(history))
    for name in ('history.pth', 'history.json'):
        model = copy.deepcopy(ours)
        graph = easypruner.trace(model, images)
        masks = read_masks(tmp_path / name).fit(graph, Masks(), How())
        easypruner.prune(model, masks, graph=graph)
        state = theirs.state_dict()
        assert {n: t.shape for n, t in model.state_dict().items()} == {
            n: t.shape for n, t in state.items()
        }
        assert all(torch.equal(t, state[n]) for n, t in model.state_dict().items())
        with torch.no_grad():
            assert torch.equal(model(images), theirs(images))


def fit(content: Any, build: Any, folder: Path) -> Masks:
    (folder / 'history.json').write_text(json.dumps(content))
    return read_masks(folder / 'history.json').fit(traced_network(build), Masks(), How())


def test_indices_count_what_earlier_entries_leave(tmp_path: Path) -> None:
    content = [['body.0.0', True, [0, 2]], ['body.1.0', False, [0]], ['body.0.0', True, [4]]]
    masks = fit(content, Plain, tmp_path)
    assert masks['body.0.0'].tolist() == [False, False, False, True, True, True, True, False]


def test_inputs_of_a_grouped_convolution_are_those_of_all_groups(tmp_path: Path) -> None:
    graph = traced_network(Grouped)
    conv = next(n for n, m in graph.model.named_modules() if getattr(m, 'groups', 1) > 1)
    inner = graph.parameter(f'{conv}.weight').shape[1]
    groups = graph.model.get_submodule(conv).groups
    indices = [1 + inner * number for number in range(groups)]
    masks = fit([[conv, False, indices]], Grouped, tmp_path)
    assert masks.removed_units == 1


@pytest.mark.parametrize(
    ('build', 'content', 'words'),
    [
        (Plain, [['body.0.0', True, [8]]], 'removes channel 8; the layer has 8 channels'),
        (Plain, [['body.0.0', True, [7]], ['body.0.0', True, [7]]], 'entry 1 .* has 7 channels'),
        (
            Plain,
            [['body.0.0', 1, [7]]],
            r'entry 0 of the history .* expected \[layer,',
        ),
        (Plain, [['body.0.0', True, [-1]]], 'whole numbers from 0'),
        (Plain, [['body.0.0', True, [1.5]]], 'whole numbers from 0'),
        (Plain, [['body.0.0', True, 'abc']], 'whole numbers from 0'),
        (Plain, [['body.0.0', True]], 'entry 0 of the history'),
        (Plain, [['body.0.0', True, [1]], None], 'entry 1 of the history .* is None'),
        (Plain, [['body.0.00', True, [1]]], "does not have; did you mean 'body.0.0'"),
        (Plain, [['body.0.2', True, [1]]], 'is of a ReLU, which has no weight'),
        (Plain, [['head', True, [1]]], 'entry 0 .* removes 1 channels that cannot .* an output'),
        (Plain, {'pruning_history': [['head', False]]}, 'entry 0 of the history'),
        (Flattened, [['head.0', False, [0]]], 'removes some channels of 1 units'),
    ],
)
def test_files_that_do_not_fit(build: Any, content: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(MaskError, match=words):
        fit(content, build, tmp_path)
