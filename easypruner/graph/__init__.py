"""The channel graph: tape, rules, groups, cost, surgery, verification. Knows no strategy.

:func:`rule` adds the rule of an operation; it gets a :class:`Coupling` and an :class:`Operation`.

``easypruner.trace`` and its companions are the functions of :mod:`easypruner.graph.tracing`,
:mod:`easypruner.graph.pruning` and :mod:`easypruner.graph.verify`, given the layer handlers of
plugins.
"""

from easypruner.graph.answers.explanation import Explanation, Tied
from easypruner.graph.answers.frozen import Frozen
from easypruner.graph.answers.plan import LeftAlone, Plan, PlannedGroup, PlannedLayer
from easypruner.graph.answers.shares import Held, KindShare
from easypruner.graph.coupling.axes import Axis
from easypruner.graph.coupling.cost import Cost
from easypruner.graph.coupling.coupling import Coupling
from easypruner.graph.coupling.groups import ChannelGroup
from easypruner.graph.coupling.layout import Member
from easypruner.graph.coupling.rules import rule
from easypruner.graph.cutting.handlers import LayerHandler
from easypruner.graph.cutting.network_record import NetworkRecord
from easypruner.graph.cutting.optimizer_handler import OptimizerHandler, ParameterCut
from easypruner.graph.cutting.record import ArchitectureRecord, TensorCut
from easypruner.graph.cutting.transform import Transform
from easypruner.graph.graph import ChannelGraph
from easypruner.graph.limits import Limits
from easypruner.graph.masks import Masks
from easypruner.graph.recording.tape import Operation
from easypruner.graph.trial.widths import RepairedNumber
from easypruner.graph.verify import Verification

__all__ = [
    'ArchitectureRecord',
    'Axis',
    'ChannelGraph',
    'ChannelGroup',
    'Cost',
    'Coupling',
    'Explanation',
    'Frozen',
    'Held',
    'KindShare',
    'LayerHandler',
    'LeftAlone',
    'Limits',
    'Masks',
    'Member',
    'NetworkRecord',
    'Operation',
    'OptimizerHandler',
    'ParameterCut',
    'Plan',
    'PlannedGroup',
    'PlannedLayer',
    'RepairedNumber',
    'TensorCut',
    'Tied',
    'Transform',
    'Verification',
    'rule',
]
