"""Locations: which modules call the operations that an exporter refuses."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram

_NAME = re.compile(r'\b([A-Za-z_]\w*)(?:::|\.)(\w+)')
_COPY = re.compile(r'@\d+')
_INNER = 'network'
"""The name of the network in what is exported."""
_MOST = 2


@dataclass(frozen=True)
class Call:
    """A call of an operation.

    Attributes:
        operation: the operation, such as ``aten::relu``.
        path: the path of the module that calls it.
        kind: the name of its class.
    """

    operation: str
    path: str
    kind: str


def describe_locations(message: str, calls: Iterable[Call]) -> str:
    """Return which modules call the operations in a message, to be appended to it; '' if unknown.

    Args:
        message: the message.
        calls: the calls of the exported network.
    """
    named = {(space, name) for space, name in _NAME.findall(message)}
    known = {f'aten::{name}' if space == 'torch' else f'{space}::{name}' for space, name in named}
    found: dict[str, dict[str, None]] = {}
    for call in calls:
        if call.operation in known and call.path:
            found.setdefault(call.operation, {})[f'{call.path} ({call.kind})'] = None
    return ''.join(
        f'; {operation} is called in {_few(list(modules))}' for operation, modules in found.items()
    )


def _few(modules: list[str]) -> str:
    more = len(modules) - _MOST
    return ' and '.join(modules[:_MOST]) + (f' and {more} more modules' if more > 0 else '')


def program_calls(program: ExportedProgram) -> Iterator[Call]:
    """Yield the operations of a program, and then those into which torch decomposes them."""
    yield from _calls_in(program)
    try:
        yield from _calls_in(program.run_decompositions())
    except Exception:  # torch raises errors of many classes, and the message is enough then
        return


def _calls_in(program: ExportedProgram) -> Iterator[Call]:
    for graph in program.graph_module.modules():
        for node in getattr(getattr(graph, 'graph', None), 'nodes', ()):
            if isinstance(node.target, torch._ops.OpOverload):
                modules = list((node.meta.get('nn_module_stack') or {}).values())
                path, kind = modules[-1] if modules else ('', '')
                name = kind if isinstance(kind, str) else kind.__name__
                yield Call(
                    node.target._schema.name, _inside(_COPY.sub('', path)), name.rpartition('.')[2]
                )


def traced_calls(traced: Any, network: nn.Module) -> Iterator[Call]:
    """Yield the operations of a network that ``torch.jit.trace`` has traced.

    Args:
        traced: what was traced.
        network: the network.
    """
    kinds = {path: type(module).__name__ for path, module in network.named_modules()}
    blocks = [traced.inlined_graph]
    while blocks:
        for node in blocks.pop().nodes():
            blocks += node.blocks()
            path = node.scopeName().rpartition('/')[2].removeprefix('__module.')
            yield Call(node.kind(), _inside(path), kinds.get(path, ''))


def _inside(path: str) -> str:
    """Return the path of a module in the network, of one in what is exported."""
    return path.removeprefix(_INNER).removeprefix('.')
