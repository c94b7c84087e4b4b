"""The types that a handler handles: whether they are declared well, and whether an object fits."""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from typing import Protocol, TypeVar


class Handler(Protocol):
    """A component for some types of objects, or for their full names."""

    @property
    def handles(self) -> Collection[type | str]: ...


_Handler = TypeVar('_Handler', bound=Handler)


def fault_of_handles(handler: Handler, kind: str = 'module') -> str:
    """Return what is wrong with ``handles`` of a handler; '' if nothing is.

    Args:
        handler: the handler.
        kind: what it handles, for the message.

    >>> class Own:
    ...     handles = ('PReLU',)
    >>> fault_of_handles(Own())
    "handles 'PReLU', which is not a full name; expected one such as 'package.module.PReLU'"
    """
    handles = handler.handles
    if not isinstance(handles, tuple | list | set | frozenset) or not handles:
        shown = handles.__qualname__ if isinstance(handles, type) else repr(handles)
        advice = f', as in handles = ({shown},)' if isinstance(handles, type) else ''
        return f'handles {shown}; expected a tuple of {kind} types or of their full names{advice}'
    for handled in handles:
        if isinstance(handled, str):
            if '.' not in handled:
                return (
                    f'handles {handled!r}, which is not a full name; expected one such as '
                    f"'package.module.{handled}'"
                )
        elif not isinstance(handled, type):
            return f'handles {handled!r}; expected a type of {kind}s or its full name'
    return ''


def find_handler(subject: object, handlers: Sequence[_Handler]) -> _Handler | None:
    """Return the first handler for the type of an object or for a base class of it."""
    names = {f'{base.__module__}.{base.__qualname__}' for base in type(subject).__mro__}
    for handler in handlers:
        for handled in handler.handles:
            if isinstance(handled, str):
                if handled in names or isinstance(subject, _imported(handled)):
                    return handler
            elif isinstance(subject, handled):
                return handler
    return None


def _imported(name: str) -> type | tuple[()]:
    """Return the type with a full name if its module is imported; else no type.

    A library may export a type under another name than that of the module that defines it.
    """
    module, _, local = name.rpartition('.')
    found = getattr(sys.modules.get(module), '__dict__', {}).get(local)
    return found if isinstance(found, type) else ()
