"""ClosedLoop: raises the strength of groups until their magnitudes follow a course to zero."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ARRIVAL = 0.25
"""The share of a stage after which magnitudes should be down."""
_CHECKS = 100
_RAISE = 1.25
_MOST = 1e6


class ClosedLoop:
    """Raises the strength of a group whenever its largest magnitude is above its course.

    The course falls linearly from the first magnitude to zero, over the first quarter of the stage.
    Early, because the rest of the network then has the other three quarters to adapt. Afterwards,
    a group whose magnitude rises above ``until`` gets a higher strength again. A strength never
    falls, so that channels do not return.

    Args:
        until: the magnitude that counts as zero.

    Attributes:
        gains: group -> factor of the strength.
    """

    def __init__(self, until: float) -> None:
        self.until = until
        self.gains: dict[str, float] = {}
        self._first: dict[str, float] = {}

    def is_due(self, update: int, updates: int, times: int = 1) -> bool:
        """Tell whether magnitudes should be checked at a push, up to a hundred times in a stage.

        Args:
            update: the number of updates that are done.
            updates: the number of updates of the stage.
            times: the number of updates from one push to the next.
        """
        before, now = (number * _CHECKS // updates for number in (update - times, update))
        return before != now

    def follow(self, magnitudes: Mapping[str, float], share: float) -> bool:
        """Compare magnitudes with their courses; return whether a strength has changed.

        Args:
            magnitudes: group -> the largest magnitude that must come to zero.
            share: the share of the stage that is done.
        """
        before = dict(self.gains)
        left = max(1 - share / ARRIVAL, 0.0)
        for name, magnitude in magnitudes.items():
            first = self._first.setdefault(name, magnitude)
            # A strength of 1 brings a magnitude of 1 down in time, if no loss opposes it.
            gain = self.gains.setdefault(name, max(first, self.until))
            if magnitude > max(self.until, left * first):
                self.gains[name] = min(gain * _RAISE, _MOST)
        return self.gains != before

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed stage needs."""
        return {'gains': dict(self.gains), 'first': dict(self._first)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where a stage was interrupted; start anew if the state is empty."""
        self.gains, self._first = dict(state.get('gains', {})), dict(state.get('first', {}))
