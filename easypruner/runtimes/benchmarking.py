"""Benchmarking: networks side by side in one process, and which differences noise explains."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from easypruner.base.cache import processor
from easypruner.errors import EasyPrunerError
from easypruner.runtimes.candidates import Candidate, Loaded
from easypruner.runtimes.runtime import Runtime
from easypruner.runtimes.timing import Clock, Reading, Timed, measure
from easypruner.runtimes.untouched import untouched

_LEAST = 0.005
"""The smallest share of the time that counts as a difference: copies of a network in other places
of the memory differ by as much."""


@dataclass(frozen=True)
class Measured:
    """What was measured of one network, in one runtime, with one size of the batch.

    Attributes:
        name: the name of the network.
        runtime: the name of the runtime.
        threads: the number of threads of a pass.
        batch: the number of samples of a pass.
        seconds: the seconds of a pass.
        ratio: the share of the first network's time; None for the first network itself.
        low: the lower end of the interval of the ratio: about 95 of 100 measurements are in it.
        high: its upper end.
        memory: the bytes that loading it and a first pass take at the peak; None if not known.
        bytes: the size of its files, or of its weights in a runtime without files.
    """

    name: str
    runtime: str
    threads: int
    batch: int
    seconds: Reading
    ratio: float | None
    low: float | None
    high: float | None
    memory: int | None
    bytes: int

    @property
    def throughput(self) -> float:
        """The samples of a second."""
        return self.batch / self.seconds.median

    @property
    def differs(self) -> bool:
        """Whether noise does not explain the difference from the first network."""
        return self.low is not None and self.high is not None and not self.low <= 1 <= self.high

    def to_json(self) -> dict[str, Any]:
        """Return the values as JSON; of a difference that noise explains, no ratio."""
        times = self.seconds
        differs = None if self.ratio is None else self.differs
        return {
            'network': self.name,
            'runtime': self.runtime,
            'threads': self.threads,
            'batch': self.batch,
            'milliseconds': times.median * 1e3,
            'spread': times.spread * 1e3,
            'passes': times.count,
            'samples_per_second': self.throughput,
            'memory': self.memory,
            'bytes': self.bytes,
            'differs': differs,
            'ratio': self.ratio if differs else None,
            'interval': None if self.ratio is None else [self.low, self.high],
        }


@dataclass(frozen=True)
class Benchmark:
    """The results of a benchmark. ``print()`` shows them as a table.

    Attributes:
        rows: what was measured; by runtime, then by batch, then by network.
        machine: the processor, and package -> version.
        problems: what could not be measured, and why.
        clock: the clock of the times.
    """

    rows: tuple[Measured, ...]
    machine: Mapping[str, str]
    problems: tuple[str, ...] = ()
    clock: Clock = 'wall'

    def row(self, name: str, runtime: str, batch: int = 1) -> Measured:
        """Return what was measured of a network."""
        for row in self.rows:
            if (row.name, row.runtime, row.batch) == (name, runtime, batch):
                return row
        raise EasyPrunerError(f'{name!r} was not measured in {runtime!r} with a batch of {batch}')

    def to_json(self) -> dict[str, Any]:
        """Return the content of the file of ``easypruner benchmark --json``."""
        rows = [row.to_json() for row in self.rows]
        return {
            'machine': dict(self.machine),
            'clock': self.clock,
            'rows': rows,
            'problems': list(self.problems),
        }

    def __str__(self) -> str:
        from easypruner.runtimes.benchmark_table import benchmark_text

        return benchmark_text(self)


def benchmark_networks(
    candidates: Sequence[Candidate],
    runtimes: Sequence[Runtime],
    batches: Sequence[int] = (1,),
    *,
    repeats: int = 20,
    seconds: float | None = 2.0,
    limit: float | None = None,
    memory: bool = True,
    clock: Clock = 'wall',
) -> Benchmark:
    """Time networks in rounds in which each of them runs once, for each runtime and batch.

    The first network runs twice in each round, under two copies: where they differ, so may any
    other network by chance.

    Args:
        candidates: the networks; the first is the one that the others are compared with.
        runtimes: the runtimes.
        batches: the numbers of samples of a pass.
        repeats: the least number of rounds.
        seconds: the least time of the rounds of one runtime and batch; None for ``repeats`` rounds.
        limit: the most time of the rounds of one runtime and batch, after five rounds; None for
            no limit.
        memory: whether the memory is measured, for which each network is loaded again.
        clock: which clock.

    Raises:
        EasyPrunerError: nothing could be measured; with the reasons. Or a runtime has no CPU time.
    """
    rows: list[Measured] = []
    problems: list[str] = []
    rounds = {'repeats': repeats, 'seconds': seconds, 'limit': limit, 'clock': clock}
    networks = [each.network for each in candidates if each.network is not None]
    for runtime in runtimes:
        runtime.check()
        _check_clock(clock, runtime)
        with tempfile.TemporaryDirectory(prefix='easypruner-') as folder, untouched(*networks):
            loaded = [
                Loaded(candidate, runtime, Path(folder) / str(number))
                for number, candidate in enumerate(candidates)
            ]
            for batch in batches:
                rows += _rows(loaded, runtime, batch, problems, rounds, memory)
    if not rows:
        raise EasyPrunerError('nothing could be measured: ' + '; '.join(problems))
    versions = {k: v for runtime in runtimes for k, v in runtime.versions().items()}
    return Benchmark(tuple(rows), {'processor': processor(), **versions}, tuple(problems), clock)


def _check_clock(clock: Clock, runtime: Runtime) -> None:
    """Raise EasyPrunerError if a pass of a runtime does not run on the clock."""
    if clock == 'cpu' and runtime.clock != 'cpu':
        raise EasyPrunerError(
            f"{runtime.name} does not run on the processor, so clock='cpu' does not time its "
            "passes; use clock='wall'"
        )


def _rows(
    loaded: Sequence[Loaded],
    runtime: Runtime,
    batch: int,
    problems: list[str],
    rounds: Mapping[str, Any],
    memory: bool,
) -> Iterator[Measured]:
    """Yield what was measured of each network, with one batch."""
    running: list[Loaded] = []
    passes: list[Callable[[], tuple[Tensor, ...]]] = []
    for each in loaded:
        try:
            passes.append(each.passing(batch))
            running.append(each)
        except EasyPrunerError as error:  # noqa: PERF203
            reason = f'{error}{each.advice}'
            problems.append(f'{each.name}, {runtime.name}, batch {batch}: {reason}')
    if not running:
        return
    twin = [running[0].passing(batch)] if len(running) > 1 else []
    times = measure([*passes, *twin], threads=runtime.threads, **rounds)
    doubt = max(_LEAST, abs(times[-1].ratio.median - 1)) if twin else _LEAST
    passes.clear()
    twin.clear()
    for number, (each, timed) in enumerate(zip(running, times, strict=False)):
        ratio, low, high = _compared(timed, doubt) if number else (None, None, None)
        yield Measured(
            name=each.name,
            runtime=runtime.name,
            threads=runtime.threads,
            batch=batch,
            seconds=timed.seconds,
            ratio=ratio,
            low=low,
            high=high,
            memory=each.memory(batch) if memory else None,
            bytes=each.bytes(batch),
        )


def _compared(timed: Timed, doubt: float) -> tuple[float, float, float]:
    """Return the ratio to the first network and its interval.

    Args:
        timed: the times of a network.
        doubt: the share of the time by which two copies of one network differ.
    """
    low, high = timed.interval
    return timed.ratio.median, max(low * (1 - doubt), 0.0), high * (1 + doubt)
