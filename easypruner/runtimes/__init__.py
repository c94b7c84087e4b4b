"""Runtimes: export networks, run and time them, and find the widths on which they are fast."""

from easypruner.runtimes.runtime import Exported, Runtime, Session

__all__ = ['Exported', 'Runtime', 'Session']
