"""Plain attributes of modules: setting them, and putting them back as they were."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

Attributes = Mapping[tuple[str, str], Any]
"""(module path, attribute) -> value."""


def set_attributes(model: nn.Module, attributes: Attributes) -> None:
    """Set plain attributes of modules."""
    for (path, name), value in attributes.items():
        setattr(model.get_submodule(path), name, value)


@contextlib.contextmanager
def attributes_restored(model: nn.Module, on_success: bool = True) -> Iterator[None]:
    """Put every module's plain attributes back as they were: always, or only after an error.

    Lists and dicts among them are restored to their former content.
    """
    before = [(module, _snapshot(module)) for module in model.modules()]
    try:
        yield
    except BaseException:
        _restore(before)
        raise
    if on_success:
        _restore(before)


def _snapshot(module: nn.Module) -> dict[str, Any]:
    return {
        name: (value, value.copy() if type(value) in (list, dict) else None)
        for name, value in module.__dict__.items()
    }


def _restore(before: list[tuple[nn.Module, dict[str, Any]]]) -> None:
    for module, saved in before:
        for name in module.__dict__.keys() - saved.keys():
            del module.__dict__[name]
        for name, (value, content) in saved.items():
            module.__dict__[name] = value
            if content is not None and not _holds(value, content):
                value.clear()
                (value.extend if isinstance(value, list) else value.update)(content)


def _holds(value: Any, content: Any) -> bool:
    """Tell whether a list or dict holds the same objects as its copy: tensors do not compare."""
    if len(value) != len(content):
        return False
    pairs = zip(value, content, strict=True)
    if isinstance(value, dict):
        pairs = zip(value.items(), content.items(), strict=True)
        return all(a[0] == b[0] and a[1] is b[1] for a, b in pairs)
    return all(a is b for a, b in pairs)
