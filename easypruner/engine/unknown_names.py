"""Names of classes and arguments that MMEngine does not know: what they may have been meant for."""

from __future__ import annotations

import inspect
import re
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import mmengine.registry
from mmengine.registry import DefaultScope, Registry
from mmengine.runner import Runner

from easypruner.errors import ConfigError, nearest

_UNKNOWN = re.compile(r'(\S+) is not in the (?:\S+?::)?([\w ]+?) registry')
_UNEXPECTED = re.compile(r"__init__\(\) got an unexpected keyword argument '(\w+)'")
_OF_RUNNER = re.compile(r"Runner\.(\w+)\(\) got an unexpected keyword argument '(\w+)'")
"""A method of MMEngine's Runner that got a dict of a config as its arguments."""
_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_MOST = 30
"""The number of names up to which all of them are listed."""


def check_known(registry: Registry, kind: str, name: Any) -> None:
    """Raise ConfigError if a registry has no class of a name where MMEngine looks for it.

    MMEngine looks in the default scope, which may be that of another package, and in MMEngine.

    Args:
        registry: the registry of MMEngine.
        kind: what it has, for messages.
        name: the name; everything but a string is accepted.
    """
    if not isinstance(name, str):
        return
    with registry.switch_scope_and_registry(None) as searched:
        if searched.get(name) is not None:
            return
    known = {each for _, each in _names(registry)}
    raise ConfigError(f'unknown {kind} {name!r}; {nearest(name, known)}')


def explain_unknown(message: str) -> str | None:
    """Return what to do about a name that MMEngine does not know; None for other messages.

    Args:
        message: the message of MMEngine's KeyError.
    """
    found = _UNKNOWN.search(message)
    if found is None:
        return None
    name, kind = found.groups()
    scopes: dict[str, set[str]] = {}
    for registry in vars(mmengine.registry).values():
        if isinstance(registry, Registry) and registry.name == kind:
            for scope, each in _names(registry):
                scopes.setdefault(each, set()).add(scope)
    known = set(scopes)
    if name in known:
        return _elsewhere(name, kind, sorted(scopes[name]))
    hint = nearest(name, known) if known else ''
    if not hint.startswith('did you mean') and len(known) > _MOST:
        hint = f'none of the {len(known)} known names is similar'
    return (
        f'unknown {kind.replace("_", " ")} {name!r}; {hint}; a class of your own has to be '
        'registered by a module of custom_imports'
    )


def _elsewhere(name: str, kind: str, scopes: Sequence[str]) -> str:
    """Return what to do about a name that is registered, but not where MMEngine has looked."""
    current = DefaultScope.get_current_instance()
    searched = '' if current is None else f', and default_scope={current.scope_name!r} is searched'
    words, owners = kind.replace('_', ' '), ' and '.join(scopes)
    return (
        f'the {words} {name!r} is one of {owners}{searched}; correct default_scope, or write '
        f'{f"{scopes[0]}.{name}"!r}'
    )


def explain_argument(error: BaseException) -> str:
    """Return a hint about an argument that a class which MMEngine builds does not take, or ''.

    Args:
        error: the error of the class, or of one of its bases, or of a method of the Runner.
    """
    of_runner = _OF_RUNNER.search(str(error)) if isinstance(error, TypeError) else None
    if of_runner is not None and hasattr(Runner, of_runner[1]):
        return nearest(of_runner[2], _taken(getattr(Runner, of_runner[1])))
    found = _UNEXPECTED.search(str(error)) if isinstance(error, TypeError) else None
    if found is None:
        return ''
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    built = [f.f_locals.get('obj_cls') for f in frames if f.f_code.co_name == 'build_from_cfg']
    if not built or not inspect.isclass(built[-1]):
        return ''
    return nearest(found[1], set(_arguments(built[-1])))


def _arguments(owner: type) -> Iterator[str]:
    """Yield the arguments that a class takes, or passes on to its bases."""
    for each in owner.__mro__:
        # Classes written in C have no signature.
        if not inspect.isfunction(vars(each).get('__init__')):
            continue
        parameters = inspect.signature(vars(each)['__init__']).parameters.values()
        yield from _taken(vars(each)['__init__'])
        if all(parameter.kind is not inspect.Parameter.VAR_KEYWORD for parameter in parameters):
            return


def _taken(function: Callable[..., Any]) -> list[str]:
    """Return the names of the arguments of a function, without ``self``."""
    parameters = inspect.signature(function).parameters.values()
    return [p.name for p in parameters if p.kind in _NAMED and p.name != 'self']


def _names(registry: Registry) -> Iterator[tuple[str, str]]:
    """Yield (scope, name) of each class of a registry and its children."""
    yield from ((str(registry.scope), name) for name in registry.module_dict)
    for child in registry.children.values():
        yield from _names(child)
