"""trace(), prune(), verify() and load_pruned() with the handlers and transforms of plugins."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from easypruner.graph import ChannelGraph, pruning, tracing
from easypruner.graph import verify as verification
from easypruner.graph.cutting import network_record
from easypruner.plugins.handlers import (
    plugin_handlers,
    plugin_optimizer_handlers,
    plugin_transforms,
)
from easypruner.plugins.targets import target_of

_FOUND = {
    'handlers': plugin_handlers,
    'optimizer_handlers': plugin_optimizer_handlers,
    'transforms': plugin_transforms,
}
_TARGET = 'target'
_Arguments = ParamSpec('_Arguments')
_Result = TypeVar('_Result')


def _with_plugins(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """Return a function that adds the handlers and transforms of plugins to its arguments."""

    @functools.wraps(function)
    def with_plugins(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        given = signature.bind(*args, **kwargs)
        for name, found in _FOUND.items():
            if name in signature.parameters:
                given.arguments[name] = (*given.arguments.get(name, ()), *found())
        if _TARGET in signature.parameters:
            given.arguments[_TARGET] = target_of(given.arguments.get(_TARGET))
        result = function(*given.args, **given.kwargs)
        if isinstance(result, ChannelGraph):  # its plans are applied with plugins as well
            result.pruner = prune
        return result

    signature = inspect.signature(function)
    return with_plugins


trace = _with_plugins(tracing.trace)
prune = _with_plugins(pruning.prune)
verify = _with_plugins(verification.verify)
load_pruned = _with_plugins(network_record.load_pruned)
