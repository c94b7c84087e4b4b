"""The times of a run's networks in runtimes, for its report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import nn

from easypruner.graph.recording.tape import ExampleInputs
from easypruner.plugins.registry import RUNTIMES
from easypruner.report.text import plural
from easypruner.report.times import RunTime, RunTimes
from easypruner.runtimes import Runtime
from easypruner.runtimes.benchmarking import Benchmark, benchmark_networks
from easypruner.runtimes.candidates import Candidate, has_files

_BEFORE, _AFTER = 'before', 'after'
_PASSES, _SECONDS = 50, 2.0
"""The most passes of a network, and the seconds after which five are enough."""
_SMALL = 1e-3
"""The seconds of a pass below which no network is exported by default: an export takes seconds."""


def measure_times(
    original: nn.Module,
    final: nn.Module,
    inputs: ExampleInputs,
    given: Sequence[Runtime] | None,
) -> RunTimes:
    """Time the original network of a run, and its final one beside it.

    Args:
        original: the original network.
        final: the final network.
        inputs: their example inputs.
        given: the runtimes; None for those that are in reports by default, where they are
            installed and worth an export.
    """
    networks = [Candidate(_BEFORE, original, inputs), Candidate(_AFTER, final, inputs)]
    found: list[Benchmark] = []
    facts: list[str] = []
    for runtime in _default_runtimes() if given is None else given:
        if given is None and found and has_files(runtime) and _pass_of(found[0]) < _SMALL:
            facts.append(
                f'{runtime.name}: not measured, because a pass takes less than a millisecond; '
                f'measure it with Report(runtimes=[{runtime.name!r}])'
            )
            continue
        try:
            found.append(
                benchmark_networks(
                    networks, [runtime], repeats=_PASSES, seconds=None, limit=_SECONDS, memory=False
                )
            )
        # The results of a run are worth more than its times, whatever a runtime raises.
        except Exception as error:
            facts.append(f'{runtime.name}: not measured: {error}')
    whole = [each for each in found if len(each.rows) == len(networks)]
    facts += [problem for each in found for problem in each.problems]
    return RunTimes(tuple(map(_time_of, whole)), (*_conditions(whole), *facts))


def _default_runtimes() -> list[Runtime]:
    """Return the runtimes that are in reports by default, if installed; those of torch first."""
    classes = [cls for cls in RUNTIMES.classes.values() if cls.reported and not cls.missing()]
    return sorted((cls() for cls in classes), key=has_files)


def _pass_of(found: Benchmark) -> float:
    return found.rows[0].seconds.median


def _time_of(found: Benchmark) -> RunTime:
    before, after = found.rows
    assert after.ratio is not None and after.low is not None and after.high is not None
    return RunTime(
        before.runtime,
        before.seconds.median * 1e3,
        after.seconds.median * 1e3,
        after.ratio,
        after.low,
        after.high,
    )


def _conditions(found: Sequence[Benchmark]) -> Iterator[str]:
    """Yield a line on how the times were measured."""
    if found:
        threads = ' or '.join(
            plural(count, 'thread') for count in sorted({each.rows[0].threads for each in found})
        )
        versions = {k: v for each in found for k, v in each.machine.items()}
        named = [name if name == 'processor' else f'{name} {v}' for name, v in versions.items()]
        named[0] = versions['processor']
        yield f'times: passes of one sample with {threads}, {", ".join(named)}'
