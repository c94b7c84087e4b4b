"""slim() with a regularizer: it selects, trains and cuts as the single steps do."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD

import easypruner
from easypruner import Context, PushWarning
from easypruner.errors import ConfigError
from tests.helpers.own_loops import batches, graph_of, loss_of, make_net

UPDATES = 12
EXAMPLE = torch.rand(1, 3, 8, 8)
Options = dict[str, Any]


def train_with(options: Options) -> Callable[..., None]:
    def train(model: nn.Module, regularize: Callable[..., Any]) -> None:
        optimizer = SGD(model.parameters(), lr=0.05, momentum=0.9)
        regularize(optimizer, updates=UPDATES, **options)
        for batch in batches(UPDATES):
            optimizer.zero_grad()
            loss_of(model, batch).backward()
            optimizer.step()

    return train


CASES: dict[str, tuple[Any, Options, bool]] = {
    'masks first, strength in train': ('MaskSparsity', {'until': 1e-3}, True),
    'masks first, a dict': (dict(type='MaskSparsity', strength=dict(until=1e-3)), {}, True),
    'masks last': ('GlobalSparsity', {'strength': 0.1}, False),
    'masks last, of groups': ('GroupLasso', {'strength': 0.1}, False),
    'masks first, of groups': (dict(type='GroupLasso', masked=True), {'strength': 0.1}, True),
    'masks first, an object': ('object', {}, True),
}


@pytest.mark.parametrize('case', CASES)
def test_it_does_the_same_as_the_single_steps(case: str) -> None:
    regularizer, options, first = CASES[case]
    if regularizer == 'object':
        regularizer = easypruner.regularizers.MaskSparsity(0.5)
    net = make_net()
    before = copy.deepcopy(net.state_dict())
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', PushWarning)
        slimmed = easypruner.slim(
            net,
            EXAMPLE,
            macs=0.6,
            source='BNScale',
            regularizer=regularizer,
            train=train_with(options),
        )
        graph = graph_of(net)
        source = easypruner.sources.BNScale(budget=easypruner.budgets.Macs(0.6))
        masks = source.select(graph, Context()) if first else None
        optimizer = SGD(net.parameters(), lr=0.05, momentum=0.9)
        with easypruner.regularize(
            net, optimizer, graph, regularizer, masks=masks, updates=UPDATES, **options
        ) as pusher:
            for batch in batches(UPDATES):
                optimizer.zero_grad()
                loss_of(net, batch).backward()
                optimizer.step()
    chosen = masks if masks is not None else source.select(graph, Context())
    easypruner.prune(net, chosen, graph=graph)
    expected = net.state_dict()
    for name, tensor in slimmed.model.state_dict().items():
        assert torch.equal(tensor, expected[name]), name
    assert slimmed.push is not None
    assert slimmed.push.now[
        'kept scales' if first else 'removed scales' if masks else 'kept scales'
    ]
    assert slimmed.push.done == pusher.done == UPDATES
    assert f'{UPDATES} of {UPDATES} updates' in str(slimmed)
    assert set(before) == set(expected)


def test_the_network_itself_is_not_trained() -> None:
    net = make_net()
    before = copy.deepcopy(net.state_dict())
    easypruner.slim(
        net,
        EXAMPLE,
        macs=0.6,
        regularizer='MaskSparsity',
        train=train_with({'until': 0.5}),
        batches=batches(3),
    )
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_batch_norms_are_calibrated_after_the_cut() -> None:
    options = dict(macs=0.6, regularizer='MaskSparsity', train=train_with({'until': 1e-3}))
    own = easypruner.slim(make_net(), EXAMPLE, batches=batches(3), **options).model
    other = easypruner.slim(make_net(), EXAMPLE, **options).model
    assert not torch.equal(own.norm1.running_mean, other.norm1.running_mean)
    easypruner.calibrate(other, batches(3))
    torch.testing.assert_close(own.norm1.running_mean, other.norm1.running_mean)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(regularizer='MaskSparsity'), r'needs train=, a function train\(model, regularize\)'),
        (dict(train=print), "needs a regularizer, such as regularizer='MaskSparsity'"),
        (dict(train=3, regularizer='MaskSparsity'), 'train=3 of slim; expected a function'),
        (dict(train=print, regularizer='MaskSparsty'), "did you mean 'MaskSparsity'"),
        (
            dict(train=lambda model, regularize: None, regularizer='MaskSparsity'),
            r'train of slim did not call regularize\(optimizer, ...\)',
        ),
        (
            dict(
                train=lambda model, regularize: regularize(
                    SGD(model.parameters(), lr=0.1), updates=1, until=0.1
                ),
                regularizer='MaskSparsity',
            ),
            r'train of slim did not call optimizer.step\(\)',
        ),
        (dict(train=train_with({}), regularizer='MaskSparsity'), 'needs a strength'),
    ],
)
def test_mistakes_are_named(options: Options, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        easypruner.slim(make_net(), EXAMPLE, macs=0.6, **options)
