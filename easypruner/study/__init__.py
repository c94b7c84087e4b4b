"""Studies: methods are compared over seeds, budgets and other values, by one file."""

from easypruner.study.proposals import between
from easypruner.study.sweeps import choice, grid
from easypruner.study.tuned_keys import tune

__all__ = ['between', 'choice', 'grid', 'tune']
