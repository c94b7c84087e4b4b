"""The types that a handler handles: whether they are declared well, and whether an object fits."""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from typing import Generic, Protocol, TypeVar


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
    return HandlerTable(handlers).find(subject)


class HandlerTable(Generic[_Handler]):
    """The handlers by the types that they handle, to find those of many objects.

    Args:
        handlers: the handlers in order of precedence.
    """

    def __init__(self, handlers: Sequence[_Handler]) -> None:
        self._handlers = handlers
        self._ranks: dict[type | str, int] = {}
        self._checked: list[tuple[type, int]] = []
        for rank, handler in enumerate(handlers):
            for handled in handler.handles:
                self._ranks.setdefault(handled, rank)
                kind = _imported(handled) if isinstance(handled, str) else handled
                if kind is not None:
                    self._ranks.setdefault(kind, rank)
                    # Such a type may have instances that are not of subclasses.
                    if type(kind).__instancecheck__ is not type.__instancecheck__:
                        self._checked.append((kind, rank))

    def find(self, subject: object) -> _Handler | None:
        """Return the first handler for the type of an object or for a base class of it."""
        ranks = [rank for kind, rank in self._checked if isinstance(subject, kind)]
        for base in type(subject).__mro__:
            keys = (base, f'{base.__module__}.{base.__qualname__}')
            ranks += [self._ranks[key] for key in keys if key in self._ranks]
        return self._handlers[min(ranks)] if ranks else None


def _imported(name: str) -> type | None:
    """Return the type with a full name if its module is imported; else None.

    A library may export a type under another name than that of the module that defines it.
    """
    module, _, local = name.rpartition('.')
    found = getattr(sys.modules.get(module), '__dict__', {}).get(local)
    return found if isinstance(found, type) else None
