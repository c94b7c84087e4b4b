"""Studies: methods are compared over seeds, budgets and other values, by one file."""

from easypruner.study.sweeps import choice, grid, tune

__all__ = ['choice', 'grid', 'tune']
