"""The progress display of a stage: a bar on a terminal, a line per epoch elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

_Item = TypeVar('_Item')

_SECONDS_BETWEEN_LINES = 10.0


class StageProgress:
    """Progress of one stage, with the time left.

    Args:
        title: of the stage.
        console: where to; a bar is drawn only on a terminal.
        shown: False in the processes of a distributed run that stay silent.
    """

    def __init__(self, title: str, console: Console, shown: bool = True) -> None:
        self._title = title
        self._console = console
        self._shown = shown
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._last_line = time.monotonic()

    def start(self, total: int, done: int = 0) -> None:
        """Begin at ``done`` of ``total`` steps."""
        if not (self._shown and self._console.is_terminal):
            return
        self._bar = Progress(
            TextColumn('  {task.description}', markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn('left'),
            TimeRemainingColumn(),
            TextColumn('{task.fields[text]}', markup=False),
            console=self._console,
            transient=True,
        )
        self._bar.start()
        self._task = self._bar.add_task(self._title, total=total, completed=done, text='')

    def advance(self, text: str) -> None:
        """Move on by one step."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, advance=1, text=text)

    def epoch(self, done: int, total: int) -> None:
        """Say that an epoch is done, where there is no bar and some time has passed."""
        if not self._shown or self._bar is not None:
            return
        now = time.monotonic()
        if done == total or now - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = now
            self._console.print(f'  {self._title}: epoch {done}/{total}', markup=False)

    def track(self, items: Iterable[_Item], total: int) -> Iterator[_Item]:
        """Yield ``items``, of which there are ``total`` at the most, and show how far it is."""
        self.start(total)
        try:
            for item in items:
                yield item
                self.advance('')
        finally:
            self.stop()

    def stop(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
