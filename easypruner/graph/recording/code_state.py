"""What code keeps outside of modules: attributes of classes, globals of files, cached functions.

Networks keep tables there, such as the positions of a grid. If a run on stand-ins filled such a
cache, the next real forward pass would find stand-ins in it.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from easypruner.base.nested import tensors_in
from easypruner.graph.recording.snapshot import (
    copy_content,
    is_container,
    is_same_content,
    items_of,
    restore_content,
    same_values,
)

_FOREIGN = frozenset(sys.stdlib_module_names - {'__main__'}) | {'torch', 'numpy', 'easypruner'}
_CODE = (
    type, types.FunctionType, types.BuiltinFunctionType, types.ModuleType, types.MethodType,
    classmethod, staticmethod, property, types.MemberDescriptorType, types.GetSetDescriptorType,
)  # fmt: skip
"""Types of code. It stays: what is imported during a run may register functions and classes."""
_MOST_CONTAINERS = 10_000


def is_foreign(code: Any) -> bool:
    """Return whether a class or function is of Python, torch or NumPy, and is left alone."""
    return _package_of(code) in _FOREIGN


def _package_of(code: Any) -> str:
    return str(getattr(code, '__module__', '')).partition('.')[0]


class CodeState:
    """The data of classes and of the files that define them, with their present values.

    The attributes of the given classes are always restored. The other data of a file is restored
    if tensors were added to it, because then it is a cache.

    Args:
        classes: the classes of the modules of a network, and of the objects that they have.
    """

    def __init__(self, classes: Iterable[type]) -> None:
        own = dict.fromkeys(base for cls in classes for base in cls.__mro__ if not is_foreign(base))
        self._classes = [_Names(cls, with_code=True) for cls in own]
        files = {cls.__module__: sys.modules.get(cls.__module__) for cls in own}
        self._files = [_File(file, own) for file in files.values() if file is not None]

    def restore(self) -> None:
        """Set everything back to what it was."""
        for names in self._classes:
            if names.is_changed():
                names.restore()
        for file in self._files:
            file.restore()


class _File:
    """The data of a file: its globals, those of the classes and functions in it, and its caches.

    Classes and functions that it imports from its own package are included.

    Args:
        file: the imported file.
        classes: classes that are restored by themselves.
    """

    def __init__(self, file: types.ModuleType, classes: Iterable[type]) -> None:
        package = file.__name__.partition('.')[0]
        own = [value for value in vars(file).values() if _package_of(value) == package]
        apart = set(classes)
        self._names = [_Names(file)]
        for code in own:
            if isinstance(code, types.FunctionType) or (
                isinstance(code, type) and code not in apart
            ):
                self._names.append(_Names(code))
        functions = [*own, *(value for cls in apart for value in vars(cls).values())]
        self._caches = [restore_cache(function) for function in cached_functions(functions)]

    def restore(self) -> None:
        """Set everything back to what it was, if tensors were added."""
        changed = [names for names in self._names if names.is_changed()]
        if any(names.has_new_tensors() for names in changed):
            for names in changed:
                names.restore()
        for restore in self._caches:
            restore()


def cached_functions(code: Iterable[Any]) -> Iterator[functools._lru_cache_wrapper[Any]]:
    """Yield the functions with a cache of results among some code, or hidden in its decorators."""
    waiting, seen = list(code), set()
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, functools._lru_cache_wrapper):
            yield value
        elif isinstance(value, (staticmethod, classmethod, types.MethodType)):
            waiting.append(value.__func__)
        elif isinstance(value, types.FunctionType):
            waiting += _values_of_closure(value)


def restore_cache(function: functools._lru_cache_wrapper[Any]) -> Callable[[], None]:
    """Return a function that empties the cache of another one, if results were added to it."""
    size = function.cache_info().currsize

    def restore() -> None:
        if function.cache_info().currsize > size:
            function.cache_clear()

    return restore


class _Names:
    """The names of a class, a file or a function that hold data, and what containers hold.

    Args:
        owner: the class, the file or the function.
        with_code: whether functions and classes are restored as well.
    """

    def __init__(self, owner: Any, with_code: bool = False) -> None:
        self._owner = owner
        self._with_code = with_code
        self._before = dict(vars(owner))
        self._contents = [
            (value, copy_content(value))
            for value in _containers([*self._data().values(), *_values_of_function(owner)])
        ]

    def is_changed(self) -> bool:
        """Return whether something is not what it was."""
        return not (
            same_values(vars(self._owner), self._before)
            and all(is_same_content(value, content) for value, content in self._contents)
        )

    def has_new_tensors(self) -> bool:
        """Return whether tensors were added."""
        before = self._before
        added = [value for name, value in self._data().items() if before.get(name) is not value]
        for value, content in self._contents:
            known = set(map(id, items_of(content)))
            added += [item for item in items_of(value) if id(item) not in known]
        return any(True for _ in tensors_in(added))

    def restore(self) -> None:
        """Set the data back to what it was."""
        before, now = self._before, self._data()
        for name in now.keys() - before.keys():
            delattr(self._owner, name)
        for name, value in before.items():
            if self._covers(name, value) and now.get(name) is not value:
                setattr(self._owner, name, value)
        for value, content in self._contents:
            restore_content(value, content)

    def _data(self) -> dict[str, Any]:
        return {
            name: value for name, value in vars(self._owner).items() if self._covers(name, value)
        }

    def _covers(self, name: str, value: Any) -> bool:
        if isinstance(value, _CODE):
            return self._with_code
        return not name.startswith('__')


def _values_of_function(owner: Any) -> Iterator[Any]:
    """Yield the defaults of a function's parameters, and what is in its closure."""
    if isinstance(owner, types.FunctionType):
        yield from owner.__defaults__ or ()
        yield from (owner.__kwdefaults__ or {}).values()
        yield from _values_of_closure(owner)


def _values_of_closure(function: types.FunctionType) -> Iterator[Any]:
    for cell in function.__closure__ or ():
        with contextlib.suppress(ValueError):  # the name has no value yet
            yield cell.cell_contents


def _containers(values: Iterable[Any]) -> list[Any]:
    """Return the containers among values, and those in containers."""
    found: dict[int, Any] = {}
    waiting = list(values)
    while waiting and len(found) < _MOST_CONTAINERS:
        value = waiting.pop()
        if is_container(value) and id(value) not in found:
            found[id(value)] = value
            waiting += items_of(value)
    return list(found.values())
