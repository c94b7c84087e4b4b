"""The registries of components, and build(), which makes a component from a config dict."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from easypruner.base.component import Component
from easypruner.errors import EasyPrunerError, Mistakes, nearest
from easypruner.graph import Transform
from easypruner.graph.cutting.layer_handler import LayerHandler
from easypruner.plugins.completeness import check_instance
from easypruner.plugins.info import AbsentPlugin
from easypruner.strategies import Budget, MaskSource, Regularizer, Stage


class ComponentRegistry:
    """The classes of one contract, by name. Loading plugins fills it.

    Attributes:
        kind: what its components are called.
        contract: what every class in it subclasses.
        parameter: the name that arguments of this kind have: a dict under it is built too.
        classes: name -> class.
    """

    def __init__(self, kind: str, contract: type[Component], parameter: str) -> None:
        self.kind = kind
        self.contract = contract
        self.parameter = parameter
        self.classes: Mapping[str, type[Any]] = {}

    def class_of(self, config: Mapping[str, Any]) -> type[Any] | None:
        """Return the class that a config dict names, or is given as; None for an unknown name."""
        name = config.get('type')
        found = self.classes.get(name) if isinstance(name, str) else name
        return found if inspect.isclass(found) and issubclass(found, self.contract) else None

    def fill(self, classes: Iterable[type[Component]]) -> None:
        """Replace what is registered by ``classes``."""
        self.classes = MappingProxyType({cls.__name__: cls for cls in classes})


MASK_SOURCES = ComponentRegistry('mask source', MaskSource, 'source')
BUDGETS = ComponentRegistry('budget', Budget, 'budget')
REGULARIZERS = ComponentRegistry('regularizer', Regularizer, 'regularizer')
STAGES = ComponentRegistry('stage', Stage, 'stage')
LAYER_HANDLERS = ComponentRegistry('layer handler', LayerHandler, 'handler')
TRANSFORMS = ComponentRegistry('transform', Transform, 'transform')

REGISTRIES = (MASK_SOURCES, BUDGETS, REGULARIZERS, STAGES, LAYER_HANDLERS, TRANSFORMS)

_absent: list[AbsentPlugin] = []


def note_absent(plugins: Iterable[AbsentPlugin]) -> None:
    """Remember the plugins that are not loaded, for messages on names that are not known."""
    _absent[:] = plugins


def build(registry: ComponentRegistry, config: Any, *, path: str = '', **defaults: Any) -> Any:
    """Build a component from a config dict, and the components it is made of.

    ``type`` names the class, the other keys are its arguments. A dict under an argument that is
    called ``source``, ``budget``, ``regularizer``, ``stage`` or ``handler`` is itself built as a
    component of that kind; so is every dict of a list under the plural of one, and of a list of
    budgets under ``budget``. Anything else reaches the constructor as it is. A component that is
    built already is returned.

    Args:
        registry: of the expected kind.
        config: ``dict(type='ClassName', ...)``.
        path: where ``config`` stands in the whole config, such as ``stages[1]``; for messages.
        **defaults: arguments for what ``config`` leaves out.

    Raises:
        ConfigError: all mistakes in ``config`` together, each with its path: unknown types,
            unknown and missing arguments, and what constructors refused.
    """
    mistakes = Mistakes()
    component = _build(registry, config, defaults, path, mistakes)
    mistakes.raise_all()
    return component


def build_list(registry: ComponentRegistry, configs: Any, *, path: str = '') -> list[Any]:
    """Build every component of a list; see :func:`build`.

    Raises:
        ConfigError: all mistakes of all of them together.
    """
    mistakes = Mistakes()
    components = _build_list(registry, configs, path, mistakes)
    mistakes.raise_all()
    return components


def _build_list(
    registry: ComponentRegistry, configs: Any, path: str, mistakes: Mistakes
) -> list[Any]:
    if not isinstance(configs, list | tuple):
        mistakes.add(f'expected a list of {registry.kind}s, got {configs!r}', path)
        return []
    return [
        _build(registry, config, {}, f'{path}[{place}]', mistakes)
        for place, config in enumerate(configs)
    ]


def _build(
    registry: ComponentRegistry,
    config: Any,
    defaults: Mapping[str, Any],
    path: str,
    mistakes: Mistakes,
) -> Component | None:
    """Return the component, or None where anything in ``config`` is a mistake."""
    if isinstance(config, registry.contract):
        with mistakes.collect(path):
            check_instance(config)
        return config
    known = len(mistakes.found)
    cls = _find_class(registry, config, path, mistakes)
    if cls is None:
        return None
    arguments = {**defaults, **{key: value for key, value in config.items() if key != 'type'}}
    _check_arguments(cls, arguments, path, mistakes)
    arguments = {
        name: _build_argument(name, value, f'{path}.{name}' if path else name, mistakes)
        for name, value in arguments.items()
    }
    if len(mistakes.found) > known:
        return None
    with mistakes.collect(path):
        return _construct(cls, arguments)
    return None


def _find_class(
    registry: ComponentRegistry, config: Any, path: str, mistakes: Mistakes
) -> type[Component] | None:
    if not isinstance(config, Mapping) or 'type' not in config:
        mistakes.add(f"expected a {registry.kind}, dict(type='...'), got {config!r}", path)
        return None
    name = config['type']
    found: type[Component] | None = registry.class_of(config)
    if found is None:
        hint = _elsewhere(name) or _left_out(name) or nearest(str(name), registry.classes)
        mistakes.add(f'unknown {registry.kind} {name!r}; {hint}', path)
    return found


def _is_name(value: Any) -> bool:
    return isinstance(value, str)


def _elsewhere(name: Any) -> str:
    kinds = [r.kind for r in REGISTRIES if _is_name(name) and name in r.classes]
    return f'this is a {kinds[0]}' if kinds else ''


def _left_out(name: Any) -> str:
    """Return why a name is not known, if a plugin that is not loaded has it."""
    having = [plugin for plugin in _absent if _is_name(name) and plugin.has(name)]
    return ' and '.join(f'{plugin}, which has it, {plugin.absence}' for plugin in having)


def _build_argument(name: str, value: Any, path: str, mistakes: Mistakes) -> Any:
    for registry in REGISTRIES:
        if name == registry.parameter and isinstance(value, Mapping):
            return _build(registry, value, {}, path, mistakes)
        if registry is BUDGETS and name == registry.parameter and isinstance(value, list | tuple):
            return _build_list(registry, value, path, mistakes)
        if name == registry.parameter and _is_name(value) and value in registry.classes:
            mistakes.add(f'{value!r} alone is no {registry.kind}; use dict(type={value!r})', path)
        if name == f'{registry.parameter}s' and isinstance(value, list | tuple):
            return _build_list(registry, value, path, mistakes)
    return value


def _check_arguments(
    cls: type[Component], arguments: Mapping[str, Any], path: str, mistakes: Mistakes
) -> None:
    parameters = inspect.signature(cls).parameters.values()
    by_name = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    names = [parameter.name for parameter in by_name]
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        for name in arguments:
            if name not in names:
                mistakes.add(f'{cls.__name__} takes no {name!r}; {nearest(name, names)}', path)
    for parameter in by_name:
        if parameter.default is parameter.empty and parameter.name not in arguments:
            mistakes.add(f'{cls.__name__} needs {parameter.name!r}, which is missing', path)


def _construct(cls: type[Component], arguments: Mapping[str, Any]) -> Component:
    try:
        component = cls(**arguments)
    except EasyPrunerError:
        raise
    except (TypeError, ValueError) as error:
        given = ', '.join(f'{name}={value!r}' for name, value in arguments.items())
        raise EasyPrunerError(
            f'{cls.__name__}({given}) was refused: {type(error).__name__}: {error}'
        ) from error
    check_instance(component)
    return component
