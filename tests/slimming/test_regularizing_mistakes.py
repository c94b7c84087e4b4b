"""regularize(): mistakes are named, and a loop is warned of what will not work."""

from __future__ import annotations

import contextlib
import copy
import warnings
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD

import easypruner
from easypruner import Masks, PushWarning
from easypruner.errors import ConfigError, EasyPrunerError, MaskError, TraceError
from tests.helpers.own_loops import (
    MASKS,
    UPDATES,
    accumulation,
    batches,
    graph_of,
    loss_of,
    make_net,
    plain,
    start,
)


def test_a_strength_that_is_too_low_is_a_warning() -> None:
    net = make_net()
    optimizer = SGD(net.parameters(), lr=0.1)
    with pytest.warns(PushWarning, match='MaskSparsity has a reach of 0.01, but it needs at least'):
        pusher = easypruner.regularize(
            net, optimizer, graph_of(net), 'MaskSparsity', masks=MASKS, reach=0.01, updates=UPDATES
        )
    with pytest.warns(PushWarning, match='4 of 5 removed norm scales are above|5 of 5 removed'):
        plain(net, optimizer)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        pusher.close()


def test_a_closed_loop_that_has_not_arrived_is_a_warning() -> None:
    net = make_net()
    optimizer = SGD(net.parameters(), lr=0.1)
    pusher = start(net, optimizer, until=1e-6, updates=1000)
    plain(net, optimizer)
    with pytest.warns(PushWarning, match='MaskSparsity has not met until=1e-06'):
        pusher.close()


def test_a_training_that_has_diverged_is_a_warning() -> None:
    net = make_net()
    optimizer = SGD(net.parameters(), lr=0.1)
    start(net, optimizer)
    net.norm1.weight.register_hook(lambda gradient: gradient * float('nan'))
    with pytest.warns(PushWarning, match='no longer finite, so the training has diverged'):
        plain(net, optimizer)


def test_more_updates_than_announced_are_a_warning() -> None:
    net = make_net()
    optimizer = SGD(net.parameters(), lr=0.1)
    start(net, optimizer, strength=100.0, updates=UPDATES - 1)
    with pytest.warns(PushWarning, match='more updates than updates=3 of regularize'):
        plain(net, optimizer)


def test_a_training_that_fails_is_not_judged() -> None:
    net = make_net()
    optimizer = SGD(net.parameters(), lr=0.1)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        with contextlib.suppress(KeyError), start(net, optimizer, until=1e-6):
            loss_of(net, batches(1)[0]).backward()
            optimizer.step()
            raise KeyError
    assert not optimizer._optimizer_step_pre_hooks


@pytest.mark.parametrize('own', [True, False])
def test_the_push_ends_with_the_cut_of_its_masks(own: bool) -> None:
    """Whether the cut knows the graph of the push or not."""
    net = make_net()
    optimizer = SGD(net.parameters(), lr=0.1, momentum=0.9)
    graph = graph_of(net)
    pusher = easypruner.regularize(
        net, optimizer, graph, 'MaskSparsity', masks=MASKS, strength=5.0, updates=UPDATES
    )
    plain(net, optimizer)
    summary = str(pusher.summary())
    cut = graph if own else graph_of(net)
    easypruner.prune(net, MASKS, graph=cut, optimizer=optimizer)
    kept = net.norm1.weight.detach().clone()
    optimizer.zero_grad()
    optimizer.step()
    assert net.norm1.num_features == 3 and pusher.done == UPDATES
    assert bool((kept != 0).all()) and str(pusher.summary()) == summary


def mistakes() -> dict[str, tuple[type[EasyPrunerError], str, dict[str, Any]]]:
    other = make_net()
    sgd = SGD(other.parameters(), lr=0.1)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau
    return {
        'a typo': (ConfigError, "did you mean 'MaskSparsity'", dict(regularizer='MaskSparsty')),
        'no strength': (ConfigError, 'needs a strength; give until=1e-3', dict(strength=None)),
        'two strengths': (ConfigError, 'forms of one strength', dict(reach=1.0)),
        'twice': (
            ConfigError,
            'has a strength of its own',
            dict(regularizer=dict(type='MaskSparsity', strength=1.0)),
        ),
        'no masks': (ConfigError, 'give masks= to easypruner.regularize', dict(masks=None)),
        'other masks': (
            MaskError, 'conv1', dict(masks={'conv1': torch.ones(7, dtype=torch.bool)})
        ),
        'a list of masks': (ConfigError, 'expected a dict of group', dict(masks=[1])),
        'a class': (ConfigError, r'build it, as in Masks\(...\)', dict(regularizer=Masks)),
        'another model': (TraceError, 'another architecture', dict(model=nn.Linear(2, 2))),
        'another optimizer': (ConfigError, 'trains no parameter of this Net', dict(optimizer=sgd)),
        'no optimizer': (ConfigError, 'expected an optimizer of torch', dict(optimizer='SGD')),
        'no graph': (ConfigError, 'expected a channel graph', dict(graph=torch.rand(1))),
        'no updates': (ConfigError, 'updates=0 of regularize', dict(updates=0)),
        'half an update': (ConfigError, r'updates=2\.5 of regularize', dict(updates=2.5)),
        'a scheduler of another': (
            ConfigError,
            'belongs to another optimizer',
            dict(scheduler=torch.optim.lr_scheduler.StepLR(sgd, 2)),
        ),
        'a plateau': (ConfigError, 'depend on the training', dict(scheduler=plateau(sgd))),
        'no scheduler': (ConfigError, 'expected a scheduler of torch or timm', dict(scheduler=3)),
    }  # fmt: skip


@pytest.mark.parametrize('case', mistakes())
def test_mistakes_are_named(case: str) -> None:
    error, message, changes = mistakes()[case]
    net = make_net()
    given: dict[str, Any] = {
        'model': net,
        'optimizer': SGD(net.parameters(), lr=0.1),
        'graph': graph_of(net),
        'regularizer': 'MaskSparsity',
        'masks': MASKS,
        'strength': 1.0,
        'updates': UPDATES,
        **changes,
    }
    with pytest.raises(error, match=message):
        easypruner.regularize(**given)


def test_an_optimizer_without_a_pushed_parameter_is_refused() -> None:
    net = make_net()
    optimizer = SGD(net.conv1.parameters(), lr=0.1)
    with pytest.raises(ConfigError, match=r"does not train 2: 'norm1.weight', 'norm2.weight'"):
        start(net, optimizer)


def test_the_graph_may_be_that_of_a_copy() -> None:
    net = make_net()
    copied = copy.deepcopy(net)
    optimizer = SGD(copied.parameters(), lr=0.1)
    graph = graph_of(net)
    easypruner.regularize(
        copied, optimizer, graph, 'MaskSparsity', masks=dict(MASKS), strength=9.0, updates=UPDATES
    )
    optimizer.step()
    assert not torch.equal(copied.norm1.weight, net.norm1.weight)


def test_a_lazy_push_of_a_rule_without_a_penalty_is_refused() -> None:
    net = make_net()
    with pytest.raises(ConfigError, match='every of regularize needs a regularizer with a penalty'):
        start(net, SGD(net.parameters(), lr=0.1), 'GradDecay', strength=None, every=2)


def test_accumulated_updates_are_counted_once() -> None:
    net = make_net()
    optimizer = SGD(net.parameters(), lr=0.1)
    pusher = start(net, optimizer)
    accumulation(net, optimizer)
    assert pusher.done == UPDATES
    assert isinstance(pusher.masks, Masks)
