"""Kinds of layers: a runtime may be fast on other widths for each of them."""

from __future__ import annotations

from torch import Tensor
from torch.nn.modules.conv import _ConvNd

from easypruner.graph import ChannelGraph, Member

KINDS = {
    'dense': 'a convolution over all channels',
    'depthwise': 'a convolution of each channel on its own',
    'grouped': 'a convolution whose channels are in groups of more than one; its grid counts the '
    'channels of a group',
    'first': 'a convolution that reads the inputs of the network, of at most four channels',
    'linear': 'a linear layer',
}
"""Kind -> what it is."""

_FEW_INPUTS = 4


def kind_of(graph: ChannelGraph, member: Member) -> str | None:
    """Return the kind of layer whose weight a member is; None for batch norms, biases and others.

    Args:
        graph: the graph.
        member: a member of one of its groups.
    """
    operation, _, operand = member.operand.rpartition('.')
    if operand != 'weight':
        return None
    if operation == 'linear':
        return 'linear'
    if not operation.startswith('convolution'):
        return None
    weight = graph.parameter(member.param)
    groups = _groups_of(graph, member, weight)
    if groups == 1:
        return 'first' if weight.shape[1] <= _FEW_INPUTS and member.dim == 0 else 'dense'
    return 'depthwise' if weight.shape[1] == 1 else 'grouped'


def _groups_of(graph: ChannelGraph, member: Member, weight: Tensor) -> int:
    """Return the number of groups of a convolution."""
    module = graph.model.get_submodule(member.module)
    if isinstance(module, _ConvNd):
        return module.groups
    # A weight that a forward passes to a function: the number itself is not stored anywhere.
    return weight.shape[0] if weight.shape[1] == 1 < weight.shape[0] else 1
