"""A request to stop ends a run where its work is saved, or at the end of the grace period."""

from __future__ import annotations

import os
import signal
from types import SimpleNamespace

import pytest

from easypruner.base.stopping import Stop
from easypruner.engine.stop_hook import StopHook


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_nothing_happens_without_a_request() -> None:
    stop = Stop(10)
    stop.here()
    stop.unless_saved_in(1e9)
    assert not stop.requested


def test_it_ends_at_once_when_nothing_will_be_saved() -> None:
    stop = Stop(10)
    with pytest.raises(KeyboardInterrupt):
        stop.request()
    with pytest.raises(KeyboardInterrupt), Stop(0).saving_at_the_end():
        Stop(0).request()


def test_it_waits_for_what_is_saved_in_time() -> None:
    clock = Clock()
    stop = Stop(10, clock)
    with stop.on_sigterm(), stop.saving_at_the_end():
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested
        stop.unless_saved_in(9)
        with pytest.raises(KeyboardInterrupt):
            stop.unless_saved_in(11)
        clock.now += 5
        with pytest.raises(KeyboardInterrupt):
            stop.unless_saved_in(9)
        with pytest.raises(KeyboardInterrupt):
            stop.here()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)


def test_the_old_handler_comes_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    stop = Stop(10)
    with stop.on_sigterm():
        assert signal.getsignal(signal.SIGTERM) == stop.request
    assert signal.getsignal(signal.SIGTERM) == before


def test_an_epoch_that_will_not_end_in_time_is_given_up() -> None:
    """Ten iterations of two seconds: after the seventh, six seconds are left."""
    clock = Clock()
    # A loop of the config's own cannot stop between iterations.
    runner = SimpleNamespace(train_dataloader=range(10), train_loop=None, work_dir='.')
    for grace, ends in ((5, True), (7, False)):
        stop = Stop(grace, clock)
        hook = StopHook(stop, clock)
        hook.before_train_epoch(runner)
        clock.now += 14
        hook.after_train_iter(runner, 6)
        with stop.on_sigterm(), stop.saving_at_the_end():
            stop.request()
            if ends:
                with pytest.raises(KeyboardInterrupt):
                    hook.after_train_iter(runner, 6)
            else:
                hook.after_train_iter(runner, 6)
            with pytest.raises(KeyboardInterrupt):
                hook.after_train_epoch(runner)
