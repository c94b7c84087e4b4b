"""Reads: which numbers of modules a forward pass reads, and how near to the place where it fails.

A number that equals a width may mean something else, as a kernel size of 4 beside a width of 4. A
trial can only depend on a number that it reads. So one that it does not read is never repaired.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Any

from torch import nn

from easypruner.graph.recording.config_numbers import owner_of

Key = tuple[str, str]
"""The dotted path of a module, and the name of an attribute."""

AT_LINE = 0
IN_CALL = 1
BEFORE = 2
NEARNESS = (AT_LINE, IN_CALL, BEFORE)
"""Read while the failing line ran, before it in a call that was still running, or earlier."""

Reads = Mapping[Key, int]
"""The attributes that were read -> how near to the failure, the nearest read of each."""


@dataclass(frozen=True)
class _Read:
    """A read of an attribute.

    Attributes:
        key: the attribute.
        frame: the call that read it.
        line: the line of that call.
        operations: how many operations had begun.
    """

    key: Key
    frame: FrameType
    line: int
    operations: int


class ReadLog:
    """Notes the reads of attributes while it is active, and sorts them when an error ends it.

    Args:
        modules: dotted path -> module.
        keys: the attributes to watch. They must be in the dicts of the modules or their configs.
            A read of a dict of options counts as one of each of its numbers.
        count: returns how many operations have begun.
        running: returns the path of the module whose forward runs, which may share a config.
    """

    def __init__(
        self,
        modules: Mapping[str, nn.Module],
        keys: Iterable[Key],
        count: Callable[[], int],
        running: Callable[[], str] = lambda: '',
    ) -> None:
        self.found: dict[Key, int] = {}
        self._count = count
        self._modules = modules
        self._running = running
        self._keys: dict[tuple[int, str], dict[str, list[Key]]] = {}
        self._watched: dict[tuple[type[Any], str], None] = {}
        self._asked = list(keys)
        self._reads: list[_Read] = []

    def _find_owners(self) -> None:
        """Find the modules and configs that have the attributes now."""
        for path, name in self._asked:
            # Several modules may share a config.
            owner, watched = owner_of(self._modules[path], name)
            self._keys.setdefault((id(owner), watched), {}).setdefault(path, []).append(
                (path, name)
            )
            self._watched[type(owner), watched] = None

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """Watch the attributes for a block. Their classes are as they were afterwards."""
        self._find_owners()
        with contextlib.ExitStack() as undo:
            for cls, name in self._watched:
                undo.enter_context(_watching(cls, name, self._note))
            try:
                yield
            except BaseException as error:
                self._sort(error.__traceback__)
                raise
            else:
                self._sort(None)
            finally:
                self._reads.clear()

    def _note(self, owner: Any, name: str) -> None:
        paths = self._keys.get((id(owner), name), {})
        running = self._running()
        keys = next(iter(paths.values())) if len(paths) == 1 else paths.get(running)
        if keys is not None:
            frame = sys._getframe(2)
            while frame.f_code.co_name == '__getattribute__' and frame.f_back is not None:
                frame = frame.f_back
            self._reads += (_Read(key, frame, frame.f_lineno, self._count()) for key in keys)

    def _sort(self, trace: TracebackType | None) -> None:
        running = dict(traceback.walk_tb(trace))
        last = self._count() - 1
        for read in self._reads:
            line = running.get(read.frame)
            at_line = line == read.line or (trace is not None and read.operations >= last)
            nearness = AT_LINE if at_line else BEFORE if line is None else IN_CALL
            self.found[read.key] = min(nearness, self.found.get(read.key, BEFORE))


_MISSING: Any = object()


@contextlib.contextmanager
def _watching(cls: type, name: str, note: Callable[[Any, str], None]) -> Iterator[None]:
    """Call ``note`` at each read of an attribute of a class's instances for a block."""
    own = vars(cls).get(name, _MISSING)
    behind = inspect.getattr_static(cls, name, _MISSING)
    if inspect.isdatadescriptor(behind) and not isinstance(behind, _Watched):
        yield  # such as a property: reading it does not read the module's dict
        return
    type.__setattr__(cls, name, _Watched(name, behind, note))
    try:
        yield
    finally:
        if own is _MISSING:
            type.__delattr__(cls, name)
        else:
            type.__setattr__(cls, name, own)


class _Watched:
    """Stands in a class for an attribute of its instances, and reports each read of it.

    Args:
        name: the name of the attribute.
        behind: what the class has under this name, if anything.
        note: is called with the instance and the name.
    """

    def __init__(self, name: str, behind: Any, note: Callable[[Any, str], None]) -> None:
        self._name, self._behind, self._note = name, behind, note

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is not None and self._name in vars(instance):
            self._note(instance, self._name)
            return vars(instance)[self._name]
        if self._behind is _MISSING:
            raise AttributeError(f'{owner} has no attribute {self._name!r}')
        if instance is not None:
            self._note(instance, self._name)
        get = getattr(type(self._behind), '__get__', None)
        return self._behind if get is None else get(self._behind, instance, owner)

    def __set__(self, instance: Any, value: Any) -> None:
        vars(instance)[self._name] = value

    def __delete__(self, instance: Any) -> None:
        try:
            del vars(instance)[self._name]
        except KeyError:
            raise AttributeError(self._name) from None
