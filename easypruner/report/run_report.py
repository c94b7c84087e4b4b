"""The report of one run: summary.json, pictures, and the table at the end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from easypruner.report.result import RunResult

if TYPE_CHECKING:
    import pluggy
    from rich.console import Console

    from easypruner.report.scales import LayerChannels, Scales


def report_run(
    result: RunResult,
    *,
    scales: tuple[Scales, Scales] | None = None,
    layers: Sequence[LayerChannels] = (),
    files: Sequence[Path] = (),
    manager: pluggy.PluginManager | None = None,
    console: Console | None = None,
) -> tuple[Path, ...]:
    """Write the report of a run into its work directory and print it.

    Args:
        result: the run.
        scales: batch-norm scales before and after the sparsity stage, for ``scales.png``.
        layers: channels per layer, for ``channels.png``.
        files: what the run wrote already; listed with what the report writes.
        manager: asks the plugins for their artifacts.
        console: where to print; standard output by default.

    Returns:
        the paths the report wrote.
    """
    raise NotImplementedError
