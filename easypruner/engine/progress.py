"""The display of a stage's progress and of the time that is left."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

import rich.progress
from rich.console import Console

_Item = TypeVar('_Item')

_SECONDS_BETWEEN_LINES = 10.0


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
        self._last_line = time.monotonic()

    def start(self, total: int, done: int = 0) -> None:
        """Start the display with ``done`` of ``total`` steps."""
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
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, advance=1, text=text)

    def epoch(self, done: int, total: int) -> None:
        """Print that an epoch has finished, if there is no bar and the last line is not recent."""
        if not self._shown or self._bar is not None:
            return
        now = time.monotonic()
        if done == total or now - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = now
            self._console.print(f'  {self._title}: epoch {done}/{total}', markup=False)

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
