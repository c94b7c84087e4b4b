"""Timing: rounds in which networks alternate, ratios, and what noise explains."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch

from easypruner.errors import ConfigError
from easypruner.runtimes import timing
from easypruner.runtimes.timing import measure


class Machine:
    """A clock that passes stand on: each takes a time that the test chooses."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.ran, self.cached = 0.0, '', ''
        monkeypatch.setitem(timing._CLOCKS, 'wall', lambda: self.now)

    def taking(self, name: str, *seconds: float) -> Callable[[], None]:
        """Return a pass that takes each of some times in turn."""
        times = itertools.cycle(seconds)

        def run() -> None:
            self.now += next(times)
            self.ran += name

        return run

    def caching(self, name: str, seconds: float) -> Callable[[], None]:
        """Return a pass that takes twice its time if another network ran just before."""

        def run() -> None:
            self.now += seconds * (1 if self.cached == name else 2)
            self.cached = name

        return run


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


class TestMeasure:
    def test_it_returns_medians_and_ratios_to_the_first(self, machine: Machine) -> None:
        one, two = measure([machine.taking('a', 2.0), machine.taking('b', 1.0)], repeats=7)
        assert (one.seconds.median, two.seconds.median) == (2, 1)
        assert (one.ratio.median, two.ratio.median) == (1, 0.5)
        assert two.ratio.count == 7 and two.differs

    def test_a_limit_of_the_time_counts_after_five_rounds(
        self, machine: Machine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(timing, 'perf_counter', lambda: machine.now)
        (slow,) = measure([machine.taking('a', 9.0)], repeats=50, limit=1.0)
        assert slow.seconds.count == 5
        (fast,) = measure([machine.taking('a', 0.11)], repeats=50, limit=1.0)
        assert 5 < fast.seconds.count < 12

    def test_each_begins_a_round_in_turn(self, machine: Machine) -> None:
        passes = [machine.taking(name, 1.0) for name in 'abc']
        measure(passes, repeats=3, warmup=1)
        assert machine.ran == 'abc' 'bca' 'cab' 'abc'  # fmt: skip

    def test_short_passes_are_timed_in_warm_caches(self, machine: Machine) -> None:
        times = {'a': 0.002, 'b': 0.001, 'c': 1.0}
        passes = [machine.caching(name, seconds) for name, seconds in times.items()]
        short, shorter, long = measure(passes, repeats=6)
        assert short.seconds.median == pytest.approx(0.002)
        assert shorter.seconds.median == pytest.approx(0.001)
        assert long.seconds.median == pytest.approx(2.0), 'not worth the time'
        assert measure(passes, settle=False)[0].seconds.median == pytest.approx(0.004)

    def test_a_network_and_its_half_are_both_timed_in_warm_caches(self, machine: Machine) -> None:
        passes = [machine.caching('a', 0.034), machine.caching('b', 0.017)]
        _, half = measure(passes, repeats=6)
        assert half.ratio.median == pytest.approx(0.5)

    def test_the_first_pass_at_a_place_does_not_count(self, machine: Machine) -> None:
        places = [machine.taking(name, 9.0, *(20 * [1.0])) for name in 'abcdefgh']
        (timed,) = measure([places], repeats=8, warmup=1)
        assert timed.seconds.median == 1 and timed.seconds.spread == 0

    def test_places_of_a_network_take_turns_by_rounds(self, machine: Machine) -> None:
        places = [machine.taking(name, 0.001) for name in 'ab']
        measure([places], repeats=4, warmup=0)
        assert machine.ran == 'a' + 6 * 'b' + 6 * 'a' + 6 * 'b'

    def test_warm_up_does_not_count(self, machine: Machine) -> None:
        (timed,) = measure([machine.taking('a', 9.0, 9.0, 1.0, 1.0, 1.0)], repeats=3, warmup=2)
        assert timed.seconds.median == 1 and timed.seconds.spread == 0

    def test_a_load_that_slows_both_leaves_the_ratio(self, machine: Machine) -> None:
        load = (1.0, 5.0, 2.0, 3.0)
        slow = machine.taking('a', *load)
        fast = machine.taking('b', *(0.25 * each for each in load))
        _, timed = measure([slow, fast], repeats=40, warmup=0)
        assert timed.ratio.median == pytest.approx(0.25) and timed.ratio.spread == 0
        assert timed.seconds.spread > 0

    def test_a_difference_within_the_noise_is_none(self, machine: Machine) -> None:
        first = machine.taking('a', 1.0)
        second = machine.taking('b', 0.7, 1.29, 1.3, 0.69)
        _, timed = measure([first, second], repeats=20, warmup=0)
        assert not timed.differs
        assert timed.interval[0] < 1 < timed.interval[1]

    def test_an_unknown_clock_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="clock is 'sun'; expected 'wall' or 'cpu'"):
            measure([], clock='sun')  # type: ignore[arg-type]

    @pytest.mark.parametrize('fails', [False, True])
    def test_the_threads_of_torch_are_as_before(self, fails: bool) -> None:
        before, seen = torch.get_num_threads(), []

        def run() -> None:
            seen.append(torch.get_num_threads())
            if fails:
                raise KeyError

        try:
            measure([run], threads=before + 1, repeats=1, warmup=0)
        except KeyError:
            assert fails
        assert seen == [before + 1] and torch.get_num_threads() == before
