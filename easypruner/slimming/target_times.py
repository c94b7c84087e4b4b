"""The target of slim(): its grid of widths, and the time of the pruned network in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from easypruner.base.cache import processor
from easypruner.graph import ChannelGraph, Masks
from easypruner.runtimes.off_grid import OffGrid, describe_off_grid, off_grid
from easypruner.runtimes.passes import loaded
from easypruner.runtimes.runtime import Runtime
from easypruner.runtimes.timing import Timed, measure
from easypruner.runtimes.widths import Target

_SECONDS = 1.0
_REPEATS = 15
_PLACES = 6


@dataclass(frozen=True)
class TargetTimes:
    """Times in the target of a cut, all measured alternately in one process.

    Attributes:
        runtime: the name of the runtime.
        threads: the number of threads of a pass.
        machine: the processor and the versions of packages.
        full: the unpruned network.
        pruned: the pruned network; its ratio is to the unpruned one.
        any_widths: the network that the same budget leaves if widths are of any size; None if it
            was not measured.
    """

    runtime: str
    threads: int
    machine: Mapping[str, str]
    full: Timed
    pruned: Timed
    any_widths: Timed | None = None

    @classmethod
    def of(
        cls,
        runtime: Runtime,
        inputs: Any,
        full: nn.Module,
        pruned: nn.Module,
        any_widths: nn.Module | None = None,
    ) -> TargetTimes:
        """Time networks in a runtime.

        Args:
            runtime: the runtime; it has to be installed.
            inputs: the example inputs.
            full: the unpruned network.
            pruned: the pruned network.
            any_widths: the network that the same budget leaves with widths of any size.
        """
        networks = [full, pruned, *([] if any_widths is None else [any_widths])]
        times = _times(runtime, inputs, networks)
        machine = {'processor': processor(), **runtime.versions()}
        return cls(runtime.name, runtime.threads, machine, times[0], *times[1:])

    def lines(self) -> Iterator[str]:
        """Yield lines for the summary, the warnings last."""
        low, high = self.pruned.interval
        threads = 'thread' if self.threads == 1 else 'threads'
        yield (
            f'{self.runtime}, {self.threads} {threads}: {self.full.seconds.median * 1e3:.4g} ms '
            f'before, {self.pruned.seconds.median * 1e3:.4g} ms after, '
            f'{self.pruned.ratio.median:.3f} of the time ({low:.3f} to {high:.3f})'
        )
        if self.any_widths is not None:
            ratio = self.any_widths.ratio.median
            yield f'widths of any size under the same budget would take {ratio:.3f}'
        if low > 1:
            yield f'WARNING: the pruned network is slower in {self.runtime} than the unpruned one'


@dataclass(frozen=True)
class TargetSummary:
    """What the target means for a cut.

    Attributes:
        runtime: the name of the runtime.
        grid: a line about the grid of its fast widths.
        off_grid: the layers whose widths are not on the grid.
        kept_scores: the share of all scores that the kept channels have, with the grid and with
            widths of any size; None if they are not known.
        times: the times; None if the runtime is not installed.
    """

    runtime: str
    grid: str
    off_grid: tuple[OffGrid, ...]
    kept_scores: tuple[float, float] | None = None
    times: TargetTimes | None = None

    @classmethod
    def of(
        cls,
        target: Target,
        graph: ChannelGraph,
        masks: Masks,
        kept_scores: tuple[float, float] | None,
        times: TargetTimes | None,
    ) -> TargetSummary:
        """Summarize the target of a cut before it is made."""
        off = off_grid(graph, masks, target.runtime)
        return cls(target.name, target.describe(), off, kept_scores, times)

    def lines(self) -> Iterator[str]:
        """Yield lines for the summary."""
        yield self.grid
        if self.kept_scores is not None:
            kept, free = self.kept_scores
            yield (
                f'the grid keeps {100 * kept:.1f} % of all scores, widths of any size would keep '
                f'{100 * free:.1f} % (each within the budget; channels differ in MACs)'
            )
        if self.times is None:
            yield f'{self.runtime} is not installed here, so its time is not known'
        else:
            yield from self.times.lines()
        if self.off_grid:
            yield f'WARNING: {describe_off_grid(self.off_grid)}'


def _times(runtime: Runtime, inputs: Any, networks: Sequence[nn.Module]) -> tuple[Timed, ...]:
    passes = [
        loaded(runtime, network.eval(), inputs, torch.device('cpu'), _PLACES)
        for network in networks
    ]
    return measure(passes, threads=runtime.threads, repeats=_REPEATS, seconds=_SECONDS)
