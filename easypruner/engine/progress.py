"""The display of a stage's progress and of the time that is left."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import rich.progress
from rich.console import Console

from easypruner.report.text import format_duration

_Item = TypeVar('_Item')


@dataclass(frozen=True)
class Epoch:
    """An epoch that has finished.

    Attributes:
        done: the number of epochs that are done.
        total: the number of epochs of the stage.
        loss: the mean loss of the epoch; None if the model does not report a loss.
        accuracy: the accuracy after the epoch in percent; None if it was not validated.
    """

    done: int
    total: int
    loss: float | None = None
    accuracy: float | None = None


class StageProgress:
    """Shows the progress of one stage and the time that is left.

    Args:
        title: the name of the stage.
        console: the console to print to; a bar is drawn only on a terminal.
        shown: whether anything is printed; only one process of a distributed run prints.
    """

    def __init__(self, title: str, console: Console, shown: bool = True) -> None:
        self._title = title
        self._console = console
        self._shown = shown
        self._bar: rich.progress.Progress | None = None
        self._task: rich.progress.TaskID | None = None
        self._begin = time.monotonic()
        self._first = self._done = self._total = 0

    def start(self, total: int, done: int = 0) -> None:
        """Start the display with ``done`` of ``total`` steps."""
        self._begin = time.monotonic()
        self._first, self._done, self._total = done, done, total
        if not (self._shown and self._console.is_terminal):
            return
        self._bar = rich.progress.Progress(
            rich.progress.TextColumn('  {task.description}', markup=False),
            rich.progress.BarColumn(),
            rich.progress.MofNCompleteColumn(),
            rich.progress.TimeElapsedColumn(),
            rich.progress.TextColumn('left'),
            rich.progress.TimeRemainingColumn(),
            rich.progress.TextColumn('{task.fields[text]}', markup=False),
            console=self._console,
            transient=True,
        )
        self._bar.start()
        self._task = self._bar.add_task(self._title, total=total, completed=done, text='')

    def advance(self, text: str) -> None:
        """Advance the display by one step."""
        self._done += 1
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, advance=1, text=text)

    def epoch(self, epoch: Epoch) -> None:
        """Print a line about an epoch that has finished, if there is no bar."""
        if not self._shown or self._bar is not None:
            return
        text = f'  {self._title}: epoch {epoch.done}/{epoch.total}'
        if epoch.loss is not None:
            text += f', loss {epoch.loss:.3f}'
        if epoch.accuracy is not None:
            text += f', accuracy {epoch.accuracy:.2f} %'
        if self._first < self._done < self._total:
            per_step = (time.monotonic() - self._begin) / (self._done - self._first)
            text += f', {format_duration(per_step * (self._total - self._done))} left'
        self._console.print(text, markup=False, highlight=False)

    def note(self, text: str) -> None:
        """Print a text, unless it is empty."""
        if self._shown and text:
            self._console.print(f'  {self._title}: {text}', markup=False)

    def track(self, items: Iterable[_Item], total: int) -> Iterator[_Item]:
        """Yield ``items`` and show the progress. There are at most ``total`` items."""
        self.start(total)
        try:
            for item in items:
                yield item
                self.advance('')
        finally:
            self.stop()

    def stop(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
