"""The target of a network: the runtime whose fast widths a cut keeps to, from its name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from easypruner.errors import ConfigError
from easypruner.graph import ChannelGraph
from easypruner.graph.graph import WidthGrids
from easypruner.plugins.registry import RUNTIMES, build
from easypruner.plugins.use import ensure_loaded
from easypruner.runtimes import Runtime
from easypruner.runtimes.widths import AnyRuntime, Target


def target_of(value: Any, *, implied: bool = False) -> WidthGrids:
    """Return what knows the grids of fast widths.

    Args:
        value: the name of a runtime, a dict with its arguments, or an object; None for no target:
            then the grid is one that fits all runtimes.
        implied: whether groups without a ``round_to`` of their own keep to that grid, too.

    Raises:
        ConfigError: there is no such runtime, or an argument has a wrong value.
    """
    if value is None:
        return AnyRuntime(implied)
    if isinstance(value, Runtime | str | Mapping):
        return Target(runtime_of(value, 'target'))
    if hasattr(value, 'grids') and hasattr(value, 'implied'):
        known: WidthGrids = value
        return known
    raise ConfigError(
        f'target={value!r} of trace; expected the name of a runtime, a dict with its arguments, '
        'or an object'
    )


def runtime_of(value: Any, path: str = 'runtime', **defaults: Any) -> Runtime:
    """Return a runtime.

    Args:
        value: the name of a runtime, a dict with its arguments, or an object.
        path: what the value is, for messages.
        **defaults: arguments of a runtime that is not built yet.

    Raises:
        ConfigError: there is no such runtime, or an argument has a wrong value.
    """
    ensure_loaded()
    config = {'type': value} if isinstance(value, str) else value
    runtime: Runtime = build(RUNTIMES, config, path=path, **defaults)
    return runtime


def runtime_for(graph: ChannelGraph) -> Runtime:
    """Return the runtime that is the target of a graph, or torch as the network runs here."""
    target = graph.target
    return target.runtime if isinstance(target, Target) else runtime_of('TorchEager')
