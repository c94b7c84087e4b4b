"""The section of docs/latency.md on the budget Latency, from benchmarks/latency_budget.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_WITHIN = 0.03
_TEMPLATE = """## A share of the time

`benchmarks/latency_budget.py` asks `dict(type='Latency', keep=..., runtime=...)` for a share of the
time, with L1Norm and widths on the grid of the runtime, and then loads and measures the pruned and
the unpruned network afresh: in turns, each at up to 48 places in the memory, one thread, one image
of {side} px, on {processor}. *Off* is the difference to what was asked, as a share of it. *Search*
is the CPU time of the search, of which most is the export of networks, when the times of the layers
are in the cache. *Networks* is the number of pruned networks that were measured on the way.

{table}

{verdict}
"""
_COLUMNS = 'network', 'runtime', 'asked', 'delivered', 'off', 'MACs left', 'networks', 'search'


def section(results: Mapping[str, Any]) -> str:
    """Return the section.

    Args:
        results: the content of benchmarks/results/latency_budget.json.
    """
    cuts = list(results['cuts'].values())
    rows = ['| ' + ' | '.join(_COLUMNS) + ' |', '|---|---|' + '--:|' * (len(_COLUMNS) - 2)]
    rows += ['| ' + ' | '.join(_cells(cut)) + ' |' for cut in cuts]
    near = sum(abs(_off(cut)) <= _WITHIN for cut in cuts)
    verdict = f'{near} of {len(cuts)} are within {_WITHIN:.0%} of what was asked.'
    return _TEMPLATE.format(
        side=results['side'],
        processor=results['processor'],
        table='\n'.join(rows),
        verdict=verdict,
    )


def _off(cut: Mapping[str, Any]) -> float:
    return float(cut['delivered'] / cut['asked'] - 1)


def _cells(cut: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        cut['network'],
        cut['runtime'],
        f'{cut["asked"]:g}',
        f'{cut["delivered"]:.3f} ± {cut["noise"]:.3f}',
        f'{100 * _off(cut):+.1f} %',
        f'{100 * cut["macs"]:.0f} %',
        str(len(cut['measured'])),
        f'{cut["search"]:.0f} s',
    )
