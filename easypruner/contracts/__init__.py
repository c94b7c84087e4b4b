"""The contracts: what a plugin subclasses to contribute a strategy."""

from easypruner.contracts.budget import Budget
from easypruner.contracts.component import Component
from easypruner.contracts.context import Context
from easypruner.contracts.handler import LayerHandler
from easypruner.contracts.progress import Progress, Schedule
from easypruner.contracts.regularizer import Regularizer
from easypruner.contracts.source import MaskSource
from easypruner.contracts.stage import Stage

__all__ = [
    'Budget',
    'Component',
    'Context',
    'LayerHandler',
    'MaskSource',
    'Progress',
    'Regularizer',
    'Schedule',
    'Stage',
]
