"""Analysis of a network before pruning: groups, their cost, and what is frozen and why."""

from easypruner.analysis.speed import GroupTime, MacsTime, Speed, speed
from easypruner.analysis.summary import Analysis, FrozenRow, GroupRow, analyze

__all__ = [
    'Analysis',
    'FrozenRow',
    'GroupRow',
    'GroupTime',
    'MacsTime',
    'Speed',
    'analyze',
    'speed',
]
