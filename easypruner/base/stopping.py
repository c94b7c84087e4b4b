"""A request to stop, such as SIGTERM of a scheduler: the run ends where its work is saved."""

from __future__ import annotations

import _thread
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, cast

GRACE = 20.0
"""The default seconds between SIGTERM and the end of a run."""


def signal_main(number: signal.Signals) -> None:
    """Send a signal to the main thread, also while it waits for something."""
    if hasattr(signal, 'pthread_kill'):
        signal.pthread_kill(cast(int, threading.main_thread().ident), number)
    else:
        _thread.interrupt_main(number)


class Stop:
    """Ends a run after SIGTERM: where its work is saved, or when the grace period is over.

    Schedulers send SIGTERM, and kill the process somewhat later. The run ends by a
    KeyboardInterrupt, as after Ctrl-C. A second SIGTERM ends it at once.

    Args:
        grace: the seconds that the run has; 0 to end at once.
        clock: the time in seconds.
    """

    def __init__(self, grace: float = GRACE, clock: Callable[[], float] = time.monotonic) -> None:
        self._grace = grace
        self._clock = clock
        self._deadline: float | None = None
        self._saves = False
        self._timer: threading.Timer | None = None

    @property
    def requested(self) -> bool:
        """Whether the run should end."""
        return self._deadline is not None

    @contextmanager
    def on_sigterm(self) -> Iterator[None]:
        """Handle SIGTERM in the block. Only the main thread of a process can do so."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGTERM, self.request)
        try:
            yield
        finally:
            if self._timer is not None:
                self._timer.cancel()
            # A handler that was not installed from Python cannot be restored.
            with suppress(TypeError):
                signal.signal(signal.SIGTERM, before)

    @contextmanager
    def saving_at_the_end(self) -> Iterator[None]:
        """Mark a block at whose end, or in which, work is saved: a request waits for this."""
        self._saves = True
        try:
            yield
        finally:
            self._saves = False

    def request(self, *_: Any) -> None:
        """Ask the run to end; raise KeyboardInterrupt if there is nothing to wait for."""
        if self.requested or not self._saves or self._grace <= 0:
            self._deadline = self._clock()
            raise KeyboardInterrupt
        self._deadline = self._clock() + self._grace
        # At the end of the grace period, the signal comes again.
        self._timer = threading.Timer(self._grace, signal_main, [signal.SIGTERM])
        self._timer.daemon = True
        self._timer.start()

    def here(self) -> None:
        """End the run if it was asked to: its work is saved."""
        if self.requested:
            raise KeyboardInterrupt

    def unless_saved_in(self, seconds: float) -> None:
        """End the run if it was asked to, and its work will not be saved in time."""
        if self._deadline is not None and self._clock() + seconds > self._deadline:
            raise KeyboardInterrupt
