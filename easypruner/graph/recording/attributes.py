"""Attributes of modules: set them, and restore them as they were."""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from operator import is_
from typing import Any

from torch import nn

Attributes = Mapping[tuple[str, str], Any]
"""(path of a module, name of an attribute) -> value."""

# Before torch 2.5, and in modules that such a torch pickled, parameters are in an OrderedDict.
_COPIED = (dict, OrderedDict, list)


def set_attributes(modules: Mapping[str, nn.Module], attributes: Attributes) -> None:
    """Set attributes of modules.

    Args:
        modules: dotted path -> module.
        attributes: the values to set.
    """
    for (path, name), value in attributes.items():
        setattr(modules[path], name, value)


class Snapshot:
    """A copy of the attributes of modules, including the contents of lists and dicts."""

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        self._states: list[tuple[dict[str, Any], dict[str, Any], list[tuple[Any, Any]]]] = []
        for module in modules:
            attributes = module.__dict__
            contents = [(v, v.copy()) for v in attributes.values() if type(v) in _COPIED]
            self._states.append((attributes, attributes.copy(), contents))

    def restore(self) -> None:
        """Set all attributes and contents back to what they were."""
        for attributes, before, contents in self._states:
            # Most modules did not change, and a comparison costs a fraction of an update.
            if not _same_values(attributes, before):
                for name in attributes.keys() - before.keys():
                    del attributes[name]
                attributes.update(before)
            for value, content in contents:
                if value or content:
                    _restore_content(value, content)


def _same_values(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    return len(a) == len(b) and all(map(is_, a.values(), b.values()))


def _restore_content(value: Any, content: Any) -> None:
    if isinstance(value, list):
        value[:] = content
    elif not _same_values(value, content) or list(value) != list(content):
        value.clear()
        value.update(content)


@contextlib.contextmanager
def restored_on_error(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Restore the attributes of modules if the block raises."""
    before = Snapshot(modules)
    try:
        yield
    except BaseException:
        before.restore()
        raise
