"""regularize(): what enters a training loop of one's own, compared with computations by hand."""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from easypruner_plugins.activation_sparsity import ActivationSparsity
from torch import Tensor
from torch.optim import SGD, AdamW

from easypruner import PushWarning
from easypruner.errors import ConfigError
from tests.helpers.own_loops import (
    GOES,
    STRENGTH,
    UPDATES,
    WAYS,
    Net,
    batches,
    loss_of,
    make_net,
    plain,
    start,
)


@contextlib.contextmanager
def pushed_by_hand(net: Net, optimizer: SGD, proximal: bool) -> Iterator[None]:
    """Patch the innermost step: the gradients it gets are final, and so are its results."""
    inner = type(optimizer).step.__wrapped__  # type: ignore[attr-defined]

    def step(closure: Any = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if not proximal:
            for norm, goes in GOES.items():
                scale = getattr(net, norm).weight
                scale.grad = scale.grad + STRENGTH * torch.sign(scale.detach()) * goes
        inner(optimizer)
        if proximal:
            group = optimizer.param_groups[0]
            threshold = STRENGTH * group['lr'] / (1 - group.get('momentum', 0.0))
            for norm in GOES:
                for part in ('weight', 'bias'):
                    values = getattr(getattr(net, norm), part).data
                    entries = [
                        max(abs(v) - threshold, 0.0) * (1 if v > 0 else -1) for v in values.tolist()
                    ]
                    values.copy_(torch.where(GOES[norm], torch.tensor(entries), values))
        return loss

    optimizer.step = step  # type: ignore[method-assign]
    yield


@pytest.mark.parametrize('apply', ['gradient', 'proximal'])
@pytest.mark.parametrize('way', WAYS)
def test_the_push_is_that_by_hand_in_each_way_of_training(way: str, apply: str) -> None:
    """strength * sign(gamma) * mask in the gradient, or soft thresholding after the update."""
    trained = []
    for by_hand in (False, True):
        net = make_net()
        optimizer = SGD(net.parameters(), lr=0.1, momentum=0.9)
        before = copy.deepcopy(net.state_dict())
        if by_hand:
            with pushed_by_hand(net, optimizer, apply == 'proximal'):
                WAYS[way](net, optimizer)
        else:
            options = {'type': 'MaskSparsity', 'strength': STRENGTH, 'apply': apply}
            with start(net, optimizer, options) as pusher:
                WAYS[way](net, optimizer)
            assert pusher.done == UPDATES
            assert not optimizer._optimizer_step_pre_hooks
            assert not optimizer._optimizer_step_post_hooks
        trained.append(net.state_dict())
        assert any(not torch.equal(before[name], trained[-1][name]) for name in before)
    for name, tensor in trained[0].items():
        if apply == 'gradient':
            assert torch.equal(tensor, trained[1][name]), name
        else:
            torch.testing.assert_close(tensor, trained[1][name], rtol=2e-6, atol=2e-7, msg=name)


def penalty_by_hand(net: Net, x: Tensor) -> Tensor:
    """Return the sum over channels of the mean activation that convolution and classifier read."""
    first = net.norm1(net.conv1(x)).relu()
    second = net.norm2(net.conv2(first)).relu().mean((2, 3))
    return first.abs().mean((0, 2, 3)).sum() + second.abs().mean(0).sum()


@pytest.mark.parametrize('way', ['plain', 'accumulated', 'compiled before', 'scaler'])
def test_a_penalty_on_forward_passes_joins_the_loss(way: str) -> None:
    parts = 3 if way == 'accumulated' else 1
    scale = 1024.0 if way == 'scaler' else 1.0
    found = []
    for by_hand in (False, True):
        net = make_net()
        model = net
        if way == 'compiled before':
            model = torch.compile(net, backend='aot_eager')  # type: ignore[assignment]
            loss_of(model, batches(1)[0])
        optimizer = SGD(net.parameters(), lr=0.1)
        if not by_hand:
            pusher = start(model, optimizer, ActivationSparsity(STRENGTH), masks=None)
        for batch in batches(parts):
            loss = loss_of(model, batch)
            if by_hand:
                loss = loss + STRENGTH * penalty_by_hand(net, batch[0])
            else:
                loss = pusher.loss(loss)
            (scale * loss / parts).backward()
        found.append([parameter.grad / scale for parameter in net.parameters()])
        if not by_hand:
            optimizer.step()
            pusher.close()
            assert not any(m._forward_pre_hooks or m._forward_hooks for m in net.modules())
    for gradient, expected in zip(*found, strict=True):
        torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-6)


def test_a_penalty_on_forward_passes_that_does_not_join_is_an_error() -> None:
    net = make_net()
    optimizer = SGD(net.parameters(), lr=0.1)
    start(net, optimizer, ActivationSparsity(STRENGTH), masks=None)
    expected = r'it has not joined a loss; expected loss = pusher.loss\(loss\) after each forward'
    with pytest.raises(ConfigError, match=expected):
        plain(net, optimizer)


def test_other_losses_stay_as_they_are() -> None:
    net = make_net()
    pusher = start(net, SGD(net.parameters(), lr=0.1))
    loss = loss_of(net, batches(1)[0])
    assert pusher.loss(loss) is loss


RESUMED: dict[str, dict[str, Any]] = {
    'a strength': dict(strength=0.3),
    'a reach': dict(reach=0.5, scheduler=lambda update: 1 / (1 + update)),
    'a closed loop': dict(until=0.05),
    'a lazy closed loop': dict(
        regularizer=dict(type='GroupLasso', strength=dict(until=0.05)), every=2
    ),
}


@pytest.mark.parametrize('order', ['loaded before', 'loaded afterwards', 'given'])
@pytest.mark.parametrize('case', RESUMED)
def test_a_resumed_training_is_the_same_bit_for_bit(case: str, order: str) -> None:
    half = UPDATES

    def trained(first: int, last: int, saved: Any = None) -> tuple[Any, Any]:
        net = make_net()
        optimizer = SGD(net.parameters(), lr=0.1, momentum=0.9)
        if saved is not None:
            net.load_state_dict(saved[0])
        if saved is not None and order != 'loaded afterwards':
            optimizer.load_state_dict(saved[1])
        options = {'updates': 2 * half, **RESUMED[case]}
        if saved is not None and order == 'given':
            options['state'] = saved[2]
        pusher = start(net, optimizer, **options)
        if saved is not None and order != 'given':
            optimizer.load_state_dict(saved[1])
            pusher.load_state_dict(saved[2])
        for batch in batches(2 * half)[first:last]:
            optimizer.zero_grad()
            loss_of(net, batch).backward()
            with warnings.catch_warnings():
                warnings.simplefilter('ignore', PushWarning)
                optimizer.step()
        state = [net.state_dict(), optimizer.state_dict(), pusher.state_dict()]
        return copy.deepcopy(state), str(pusher.summary())

    whole, summary = trained(0, 2 * half)
    saved, _ = trained(0, half)
    resumed, other = trained(half, 2 * half, saved)
    for name, tensor in whole[0].items():
        assert torch.equal(tensor, resumed[0][name]), name
    assert summary == other
    plain_net = make_net()
    plain(plain_net, SGD(plain_net.parameters(), lr=0.1, momentum=0.9))
    assert not torch.equal(plain_net.norm1.weight, saved[0]['norm1.weight'])


@pytest.mark.parametrize('apply', ['gradient', 'proximal'])
def test_an_optimizer_that_loads_a_state_on_the_way_keeps_its_own_rates(apply: str) -> None:
    """Its parameter groups are other objects afterwards."""
    trained = []
    for loads in (False, True):
        net = make_net()
        optimizer = SGD(net.parameters(), lr=0.1, momentum=0.9)
        start(net, optimizer, dict(type='MaskSparsity', strength=STRENGTH, apply=apply), updates=8)
        plain(net, optimizer)
        if loads:
            optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        optimizer.param_groups[0]['lr'] = 0.01
        plain(net, optimizer)
        trained.append(net.norm1.weight)
    assert torch.equal(*trained)


@pytest.mark.parametrize('apply', ['gradient', 'proximal'])
def test_the_network_may_be_converted_before_its_first_update(apply: str) -> None:
    """As by model.cuda() after the call; here to another type, which any machine has."""
    trained = []
    for late in (False, True):
        net = make_net()
        net = net if late else net.double()
        optimizer = SGD(net.parameters(), lr=0.1)
        pusher = start(net, optimizer, dict(type='MaskSparsity', strength=STRENGTH, apply=apply))
        net.double()
        for images, labels in batches():
            optimizer.zero_grad()
            loss_of(net, (images.double(), labels)).backward()
            optimizer.step()
        trained.append(net.norm1.weight)
        # What was prepared at the start would be on the device of the start, too.
        prepared = pusher.regularizer.selected(pusher._push.graph, pusher.masks)
        assert {weight.dtype for weight in prepared.weights} == {torch.float64}
    assert torch.equal(*trained)


def test_a_state_is_loaded_without_unpickling(tmp_path: Any) -> None:
    net = make_net()
    optimizer = SGD(net.parameters(), lr=0.1)
    pusher = start(net, optimizer, until=0.1)
    plain(net, optimizer)
    torch.save(pusher.state_dict(), tmp_path / 'pusher.pt')
    state = torch.load(tmp_path / 'pusher.pt', weights_only=True)
    assert state['done'] == UPDATES


def test_a_state_of_another_pusher_is_refused() -> None:
    net = make_net()
    pusher = start(net, SGD(net.parameters(), lr=0.1), updates=5)
    other = start(net, SGD(net.parameters(), lr=0.1))
    with pytest.raises(ConfigError, match='updates was 5 and is 4; continue with the arguments'):
        other.load_state_dict(pusher.state_dict())
    with pytest.raises(ConfigError, match=r'expected the state_dict\(\) of a pusher'):
        other.load_state_dict(net.state_dict())


def test_the_proximal_form_is_chosen_under_an_optimizer_that_divides_gradients() -> None:
    net = make_net()
    assert start(net, SGD(net.parameters(), lr=0.1)).form == 'gradient'
    optimizer = AdamW(net.parameters(), lr=0.1)
    pusher = start(net, optimizer, strength=1.0, updates=8)
    assert pusher.form == 'proximal'
    for batch in batches(12):
        loss_of(net, batch).backward()
        optimizer.step()
        if pusher.done == pusher.updates:
            break
    assert bool((net.norm1.weight[GOES['norm1']] == 0).any())


def test_a_closed_loop_brings_to_zero_what_must_go() -> None:
    net = make_net()
    optimizer = SGD(net.parameters(), lr=0.05, momentum=0.9)
    with start(net, optimizer, until=1e-3, updates=60) as pusher:
        for batch in batches(60):
            optimizer.zero_grad()
            loss_of(net, batch).backward()
            optimizer.step()
    gone = torch.cat([net.norm1.weight[GOES['norm1']], net.norm2.bias[GOES['norm2']]])
    assert float(gone.abs().max()) <= 1e-3
    now = pusher.summary().now
    assert now['removed scales'].above == 0 < now['kept scales'].above


def test_the_summary_says_how_far_scales_came_down() -> None:
    net = make_net()
    optimizer = SGD(net.parameters(), lr=0.05, momentum=0.9)
    before = torch.cat([net.norm1.weight[GOES['norm1']], net.norm2.weight[GOES['norm2']]]).abs()
    pusher = start(net, optimizer, until=1e-3, updates=60)
    for batch in batches(30):
        loss_of(net, batch).backward()
        optimizer.step()
    after = torch.cat([net.norm1.weight[GOES['norm1']], net.norm2.weight[GOES['norm2']]]).abs()
    summary = pusher.summary()
    first, now = (rows['removed scales'] for rows in (summary.before, summary.now))
    assert (first.number, first.largest) == (5, pytest.approx(float(before.max())))
    assert now.largest == pytest.approx(float(after.max()), abs=1e-9)
    text = str(summary)
    assert 'MaskSparsity (proximal, strength' in text and '30 of 60 updates' in text
    assert 'removed scales' in text and 'kept scales' in text
    assert summary.to_dict()['done'] == 30
