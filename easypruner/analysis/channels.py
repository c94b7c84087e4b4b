"""Channels by name: ``layer3.0.conv2[17]`` is a dimension of a parameter, and an index in it."""

from __future__ import annotations

import re

from easypruner.errors import ConfigError, nearest
from easypruner.graph import ChannelGraph, Explanation

_CHANNEL = re.compile(r'(?P<path>[^\[\]]+)\[(?P<dims>(?:\s*:\s*,)*)\s*(?P<index>\d+)\s*\]')


def explain_channel(graph: ChannelGraph, channel: str) -> Explanation:
    """Return what goes with a channel that is given by name, or why it stays.

    Args:
        graph: the graph of the network.
        channel: a module and the number of a channel that it makes, ``layer3.0.conv2[17]``; or a
            parameter and an index, ``layer3.0.conv2.weight[17]``, or one of a later dimension,
            ``layer3.0.conv2.weight[:, 17]``.

    Raises:
        ConfigError: there is no such channel.

    >>> from torch import nn, zeros
    >>> from easypruner import trace
    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1))
    >>> found = explain_channel(trace(net, zeros(1, 3, 8, 8)), '0[5]')
    >>> found.group, [tied.name for tied in found.tied]
    ('0', ['0.weight[5]', '0.bias[5]', '2.weight[:, 5]'])
    """
    match = _CHANNEL.fullmatch(channel.strip())
    if match is None:
        raise ConfigError(
            f'{channel!r} is not a channel; expected a module or a parameter with an index, such '
            'as layer3.0.conv2[17] or layer3.0.conv2.weight[:, 17]'
        )
    path, dim, index = match['path'], match['dims'].count(':'), int(match['index'])
    tensors = dict(graph.model.named_parameters()) | dict(graph.model.named_buffers())
    modules = {name: module for name, module in graph.model.named_modules() if name}
    if path in tensors:
        return graph.explain(path, dim, index)
    if path not in modules:
        known = nearest(path, [*modules, *tensors])
        raise ConfigError(f'there is no module or parameter {path!r}; {known}')
    if match['dims']:
        raise ConfigError(
            f'{channel!r} names a dimension of a module; name one of its parameters, such as '
            f'{path}.weight[:, {index}]'
        )
    return graph.explain(*_made_by(graph, path), index)


def _made_by(graph: ChannelGraph, path: str) -> tuple[str, int]:
    """Return the parameter and dimension in which a module makes, or at least carries, channels."""
    own = [name for name, _ in graph.model.get_submodule(path).named_parameters(path, False)]
    if not own:
        parts = [name for name, _ in graph.model.get_submodule(path).named_children()]
        known = f'it has the parts {", ".join(parts)}' if parts else 'it has no parts either'
        raise ConfigError(f'{path!r} has no parameters of its own; {known}; name one that has')
    name = min(own, key=lambda each: (not each.endswith('.weight'), own.index(each)))
    members = [
        member
        for group in graph.groups.values()
        for member in group.members
        if member.param == name and member.role == 'out'
    ]
    return name, members[0].dim if members else 0
