"""A snapshot: the attributes of objects and the contents of containers, to be restored later."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping
from operator import is_
from typing import Any

from torch import nn

# Before torch 2.5, and in modules that such a torch pickled, parameters are in an OrderedDict.
_COPIED = frozenset({dict, OrderedDict, list, set})
_BASES = (OrderedDict, dict, set, deque, list)
_MOST_ITEMS = 20_000


class Snapshot:
    """A copy of the attributes of modules, including the contents of lists, dicts and sets.

    Args:
        modules: the modules.
        contents: whether the contents are included.
    """

    def __init__(self, modules: Iterable[nn.Module], contents: bool = True) -> None:
        self._attributes = [(m.__dict__, m.__dict__.copy()) for m in modules]
        copied = self._attributes if contents else ()
        containers = [v for _, before in copied for v in before.values() if type(v) in _COPIED]
        self._contents = [(value, value.copy()) for value in containers if value]
        # Nearly all containers of modules are empty.
        self._empty = [value for value in containers if not value]

    def restore(self) -> None:
        """Set all attributes and contents back to what they were."""
        for attributes, before in self._attributes:
            # Most modules did not change, and a comparison costs a fraction of an update.
            if not same_values(attributes, before):
                for name in attributes.keys() - before.keys():
                    del attributes[name]
                attributes.update(before)
        for value, content in self._contents:
            # Most of them are dicts that did not change.
            if type(value) is not dict or not _is_same_dict(value, content):
                restore_content(value, content)
        for value in filter(None, self._empty):
            value.clear()


def same_values(a: Mapping[Any, Any], b: Mapping[Any, Any]) -> bool:
    """Return whether two dicts have the same objects, in the same order."""
    return len(a) == len(b) and all(map(is_, a.values(), b.values()))


def _is_same_dict(a: dict[Any, Any], b: dict[Any, Any]) -> bool:
    return len(a) == len(b) and all(map(is_, a.values(), b.values())) and all(map(is_, a, b))


def is_container(value: Any) -> bool:
    """Return whether a value is a container that is restored. One of very many items is not."""
    return isinstance(value, _BASES) and _base_of(value).__len__(value) <= _MOST_ITEMS


def copy_content(container: Any) -> Any:
    """Return a copy of a dict, a list, a set, a deque or an instance of a subclass.

    >>> copy_content(deque([1, 2], maxlen=3)), copy_content(OrderedDict(a=1))
    ([1, 2], {'a': 1})
    """
    base = _base_of(container)
    if isinstance(container, dict):
        return dict(zip(base.keys(container), base.values(container), strict=True))
    return set.copy(container) if base is set else list(base.__iter__(container))


def items_of(container: Any) -> list[Any]:
    """Return the values of a dict, or the items of another container."""
    base = _base_of(container)
    return list(base.values(container) if isinstance(container, dict) else base.__iter__(container))


def is_same_content(container: Any, content: Any) -> bool:
    """Return whether a container has what it had when it was copied: the same objects."""
    base = _base_of(container)
    if base.__len__(container) != len(content):
        return False
    if base is set:
        return bool(set.__eq__(container, content))
    if isinstance(container, dict):
        return all(map(is_, base.values(container), content.values())) and all(
            map(is_, base.keys(container), content)
        )
    return all(map(is_, base.__iter__(container), content))


def restore_content(container: Any, content: Any) -> None:
    """Put back what a container had.

    Args:
        container: a dict, a list, a set or a deque.
        content: its copy.
    """
    if not is_same_content(container, content):
        base = _base_of(container)
        base.clear(container)
        (base.extend if base in (deque, list) else base.update)(container, content)


def _base_of(container: Any) -> Any:
    """Return the type whose methods are used. Those of a subclass may do more, such as imports."""
    kind = type(container)
    return kind if kind in _BASES else next(b for b in _BASES if isinstance(container, b))
