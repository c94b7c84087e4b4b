"""The contracts: the classes that a plugin subclasses to contribute a strategy."""

from easypruner.base.component import Component
from easypruner.graph.cutting.handlers import LayerHandler
from easypruner.graph.cutting.optimizer_handler import OptimizerHandler
from easypruner.strategies.budgets.budget import Budget
from easypruner.strategies.context import Context
from easypruner.strategies.regularizers.regularizer import Regularizer
from easypruner.strategies.regularizers.schedule import Progress, Schedule
from easypruner.strategies.scores import Scores
from easypruner.strategies.sources.source import MaskSource
from easypruner.strategies.stages.stage import Stage

__all__ = [
    'Budget',
    'Component',
    'Context',
    'LayerHandler',
    'MaskSource',
    'OptimizerHandler',
    'Progress',
    'Regularizer',
    'Schedule',
    'Scores',
    'Stage',
]
