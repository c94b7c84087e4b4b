"""The channel graph: tape, rules, groups, cost, surgery, verification. Knows no strategy.

``easypruner.trace`` and its companions are the functions of :mod:`easypruner.graph.graph`, given
the layer handlers of plugins.
"""

from easypruner.graph.coupling.cost import Cost
from easypruner.graph.coupling.groups import ChannelGroup, Frozen
from easypruner.graph.coupling.layout import Member
from easypruner.graph.cutting.network_record import NetworkRecord
from easypruner.graph.cutting.record import ArchitectureRecord, TensorCut
from easypruner.graph.cutting.transform import Transform
from easypruner.graph.graph import ChannelGraph
from easypruner.graph.verify import Verification

__all__ = [
    'ArchitectureRecord',
    'ChannelGraph',
    'ChannelGroup',
    'Cost',
    'Frozen',
    'Member',
    'NetworkRecord',
    'TensorCut',
    'Transform',
    'Verification',
]
