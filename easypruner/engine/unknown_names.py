"""Names that no registry of MMEngine has: what they may have been meant for."""

from __future__ import annotations

import re
from collections.abc import Iterator

import mmengine.registry
from mmengine.registry import Registry

from easypruner.errors import nearest

_UNKNOWN = re.compile(r'(\S+) is not in the (?:\S+?::)?([\w ]+?) registry')
_MOST = 30
"""The number of names up to which all of them are listed."""


def explain_unknown(message: str) -> str | None:
    """Return what to do about a name that MMEngine does not know; None for other messages.

    Args:
        message: the message of MMEngine's KeyError.
    """
    found = _UNKNOWN.search(message)
    if found is None:
        return None
    name, kind = found.groups()
    known = {
        each
        for registry in vars(mmengine.registry).values()
        if isinstance(registry, Registry) and registry.name == kind
        for each in _names(registry)
    }
    hint = nearest(name, known) if known else ''
    if not hint.startswith('did you mean') and len(known) > _MOST:
        hint = f'none of the {len(known)} known names is similar'
    return (
        f'unknown {kind.replace("_", " ")} {name!r}; {hint}; a class of your own has to be '
        'registered by a module of custom_imports'
    )


def _names(registry: Registry) -> Iterator[str]:
    yield from registry.module_dict
    for child in registry.children.values():
        yield from _names(child)
