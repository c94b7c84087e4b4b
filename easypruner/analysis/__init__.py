"""Looking at a network before it is pruned: what can go, what it holds, and what stays and why."""

from easypruner.analysis.summary import Analysis, FrozenRow, GroupRow, analyze

__all__ = ['Analysis', 'FrozenRow', 'GroupRow', 'analyze']
