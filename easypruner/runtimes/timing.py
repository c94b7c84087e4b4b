"""Timing: networks take turns, so that other load on the machine affects all of them."""

from __future__ import annotations

import contextlib
import gc
import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from time import perf_counter, process_time
from typing import Any, Literal

import torch

from easypruner.errors import ConfigError

# Of a normal distribution: the ratio of its standard deviation to its median absolute deviation,
# and the ratio of the standard error of a median to that of a mean.
_DEVIATION = 1.4826
_MEDIAN_ERROR = 1.2533

_FEWEST = 5
"""The rounds after which a limit of the time counts."""
_SETTLING = 0.025
"""The seconds of the passes by which a network finds its data in the caches again."""
_MOST_SETTLING = 5
"""The most such passes."""
_SHORT = 0.1
"""The most seconds of a pass that is notably longer if its data are not in the caches."""

Run = Callable[[], Any]
"""Runs a network once."""
Pass = Run | Sequence[Run]
"""Runs a network once; or several that do, of the same network at several places in the memory."""

Clock = Literal['wall', 'cpu']
"""``'wall'`` is the time that passes; ``'cpu'`` is that of this process alone, on all threads."""
_CLOCKS: dict[str, Callable[[], float]] = {'wall': perf_counter, 'cpu': process_time}


@dataclass(frozen=True)
class Reading:
    """A value that was measured several times.

    Attributes:
        median: the median of all measurements.
        spread: their median absolute deviation.
        count: the number of measurements.
    """

    median: float
    spread: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Reading:
        """Summarize at least one measurement."""
        median = statistics.median(values)
        spread = statistics.median(abs(value - median) for value in values)
        return cls(median, spread, len(values))

    @property
    def noise(self) -> float:
        """The uncertainty of the median: twice its standard error."""
        return 2 * _MEDIAN_ERROR * _DEVIATION * self.spread / math.sqrt(self.count)

    def __str__(self) -> str:
        return f'{self.median:.4g} ± {self.spread:.2g}'


@dataclass(frozen=True)
class Timed:
    """The times of one network that was measured beside others.

    Attributes:
        seconds: the seconds of a pass.
        ratio: the ratio of its passes to the first network's passes of the same round.
        fastest: the seconds of the fastest pass, which other load on the machine delayed least.
    """

    seconds: Reading
    ratio: Reading
    fastest: float = math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """The interval that holds the ratio in about 95 of 100 measurements."""
        return self.ratio.median - self.ratio.noise, self.ratio.median + self.ratio.noise

    @property
    def differs(self) -> bool:
        """Whether the interval of the ratio leaves out 1, so that noise does not explain it."""
        low, high = self.interval
        return low > 1 or high < 1


def measure(
    passes: Sequence[Pass],
    *,
    threads: int = 1,
    repeats: int = 20,
    warmup: int = 3,
    seconds: float | None = None,
    limit: float | None = None,
    clock: Clock = 'wall',
    before: Sequence[Run] = (),
    settle: bool = True,
) -> tuple[Timed, ...]:
    """Time functions that each run a network once.

    In each round each of them is timed once; who begins changes from round to round. A short pass
    is timed after untimed ones of the same network, as if it ran alone: the others have just
    taken its place in the caches, and it takes longer until it has its data there again.

    Args:
        passes: the functions; the first is the one that the others are compared with. If several
            run the same network, another one does in each round.
        threads: the number of threads that torch may use meanwhile.
        repeats: the number of rounds that count.
        warmup: the number of rounds before these; at least one at each place, unless it is 0.
        seconds: if given, rounds go on until this time is used up, at least ``repeats`` of them.
        limit: if given, rounds end when this time is used up, after at least five of them.
        clock: which clock.
        before: for each of the functions one that runs before it, and is not timed; or none.
        settle: whether short passes are timed after untimed ones.

    Raises:
        ConfigError: there is no such clock.
    """
    now = _CLOCKS.get(clock)
    if now is None:
        raise ConfigError(f"clock is {clock!r}; expected 'wall' or 'cpu'")
    turns = [(each,) if callable(each) else tuple(each) for each in passes]
    # The first pass at a place is longer: the memory is not there yet.
    warmup = warmup and max((warmup, *map(len, turns)))
    rounds: list[list[float]] = []
    with torch.no_grad(), torch_threads(threads), _without_collector():
        started = perf_counter()
        while len(rounds) < warmup + repeats or (
            seconds is not None and perf_counter() - started < seconds
        ):
            used = perf_counter() - started
            if limit is not None and used > limit and len(rounds) >= warmup + _FEWEST:
                break
            number = len(rounds)
            runs = [each[number % len(each)] for each in turns]
            settles = settle and rounds and number >= warmup
            untimed = [_settling(time) for time in rounds[-1]] if settles else []
            rounds.append(_round(runs, before, untimed, number, now))
    counted = rounds[warmup:]
    return tuple(
        Timed(
            Reading.of([times[place] for times in counted]),
            Reading.of([times[place] / times[0] for times in counted]),
            min(times[place] for times in counted),
        )
        for place in range(len(passes))
    )


def _settling(seconds: float) -> int:
    """Return the number of untimed passes before one that takes a time."""
    if seconds > _SHORT:
        return 0
    return min(1 + int(_SETTLING / max(seconds, 1e-9)), _MOST_SETTLING)


def _round(
    passes: Sequence[Run],
    before: Sequence[Run],
    untimed: Sequence[int],
    number: int,
    now: Callable[[], float],
) -> list[float]:
    """Return the time of each function, in their order."""
    times = [0.0] * len(passes)
    for step in range(len(passes)):
        place = (number + step) % len(passes)
        for _ in range(untimed[place] if untimed else 0):
            passes[place]()
        if before:
            before[place]()
        start = now()
        passes[place]()
        times[place] = now() - start
    return times


@contextlib.contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let torch use a number of threads for a block."""
    before = torch.get_num_threads()
    if count != before:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        if count != before:
            torch.set_num_threads(before)


@contextlib.contextmanager
def _without_collector() -> Iterator[None]:
    """Keep Python's garbage collector from running inside a pass."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
