"""Plain attributes of modules: setting them, and putting them back as they were."""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from operator import is_
from typing import Any

from torch import nn

Attributes = Mapping[tuple[str, str], Any]
"""(module path, attribute) -> value."""

# Before torch 2.5, and in modules that it has pickled, parameters and buffers are in OrderedDicts.
_COPIED = (dict, OrderedDict, list)


def set_attributes(modules: Mapping[str, nn.Module], attributes: Attributes) -> None:
    """Set plain attributes of modules.

    Args:
        modules: dotted path -> module.
        attributes: what to set.
    """
    for (path, name), value in attributes.items():
        setattr(modules[path], name, value)


class Snapshot:
    """What the attributes of modules hold, the content of lists and dicts among them included."""

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        self._states: list[tuple[dict[str, Any], dict[str, Any], list[tuple[Any, Any]]]] = []
        for module in modules:
            held = module.__dict__
            contents = [(v, v.copy()) for v in held.values() if type(v) in _COPIED]
            self._states.append((held, held.copy(), contents))

    def restore(self) -> None:
        """Put everything back."""
        for held, before, contents in self._states:
            # Most modules have not changed: comparing first is a fraction of the work.
            if len(held) != len(before) or not all(map(is_, held.values(), before.values())):
                for name in held.keys() - before.keys():
                    del held[name]
                held.update(before)
            for value, content in contents:
                if value or content:
                    _restore_content(value, content)


def _restore_content(value: Any, content: Any) -> None:
    if isinstance(value, dict):
        same = len(value) == len(content) and all(map(is_, value.values(), content.values()))
        if not same or list(value) != list(content):
            value.clear()
            value.update(content)
    elif len(value) != len(content) or not all(map(is_, value, content)):
        value[:] = content


@contextlib.contextmanager
def restored_on_error(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Put the attributes of modules back as they were if what follows fails."""
    before = Snapshot(modules)
    try:
        yield
    except BaseException:
        before.restore()
        raise
