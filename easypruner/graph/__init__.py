"""The channel graph: tape, rules, groups, cost, surgery, verification. Knows no strategy."""

from easypruner.graph.cost import Cost
from easypruner.graph.graph import ChannelGraph, prune, trace
from easypruner.graph.groups import ChannelGroup, Frozen
from easypruner.graph.places import Member
from easypruner.graph.record import ArchitectureRecord, TensorCut, load_pruned
from easypruner.graph.verify import Verification, verify

__all__ = [
    'ArchitectureRecord',
    'ChannelGraph',
    'ChannelGroup',
    'Cost',
    'Frozen',
    'Member',
    'TensorCut',
    'Verification',
    'load_pruned',
    'prune',
    'trace',
    'verify',
]
