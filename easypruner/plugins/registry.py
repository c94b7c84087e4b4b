"""The registries of components, and build(), which builds a component from a config dict."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

from easypruner.base.component import Component
from easypruner.base.describe import shown
from easypruner.errors import EasyPrunerError, Mistakes, nearest
from easypruner.graph import LayerHandler, OptimizerHandler, Transform
from easypruner.plugins.argument_types import type_faults
from easypruner.plugins.completeness import check_instance
from easypruner.plugins.info import AbsentPlugin
from easypruner.runtimes import Runtime
from easypruner.strategies import Budget, MaskSource, Regularizer, Stage


class ComponentRegistry:
    """The classes that implement one contract, by name. Loading plugins fills a registry.

    Attributes:
        kind: the name of this kind of component, for messages.
        contract: the base class of all classes in the registry.
        parameter: the name of arguments of this kind; a dict under this name is built as well.
    """

    def __init__(self, kind: str, contract: type[Component], parameter: str) -> None:
        self.kind = kind
        self.contract = contract
        self.parameter = parameter
        self._classes: Mapping[str, type[Any]] = {}
        self._later: Callable[[], Iterable[type[Component]]] | None = None

    @property
    def classes(self) -> Mapping[str, type[Any]]:
        """Name -> class."""
        if self._later is not None:
            self.fill(self._later())
        return self._classes

    def class_of(self, config: Mapping[str, Any]) -> type[Any] | None:
        """Return the class under ``type`` of a config dict; None if it is not known.

        The value of ``type`` is the name of a class, or the class itself.
        """
        name = config.get('type')
        found = self.classes.get(name) if isinstance(name, str) else name
        return found if inspect.isclass(found) and issubclass(found, self.contract) else None

    def fill(self, classes: Iterable[type[Component]]) -> None:
        """Replace the contents of the registry with ``classes``."""
        self._later = None
        self._classes = MappingProxyType({cls.__name__: cls for cls in classes})

    def fill_later(self, find: Callable[[], Iterable[type[Component]]]) -> None:
        """Replace the contents by what ``find`` returns when somebody asks for them."""
        self._classes, self._later = {}, find


MASK_SOURCES = ComponentRegistry('mask source', MaskSource, 'source')
BUDGETS = ComponentRegistry('budget', Budget, 'budget')
REGULARIZERS = ComponentRegistry('regularizer', Regularizer, 'regularizer')
STAGES = ComponentRegistry('stage', Stage, 'stage')
LAYER_HANDLERS = ComponentRegistry('layer handler', LayerHandler, 'handler')
OPTIMIZER_HANDLERS = ComponentRegistry('optimizer handler', OptimizerHandler, 'optimizer_handler')
TRANSFORMS = ComponentRegistry('transform', Transform, 'transform')
RUNTIMES = ComponentRegistry('runtime', Runtime, 'runtime')

REGISTRIES = (
    MASK_SOURCES,
    BUDGETS,
    REGULARIZERS,
    STAGES,
    LAYER_HANDLERS,
    OPTIMIZER_HANDLERS,
    TRANSFORMS,
    RUNTIMES,
)

_absent: list[AbsentPlugin] = []
_OF_THE_USER = (
    'a plugin of your own has to be loaded: --plugins DIR, plugins=[DIR] of a study, '
    'custom_imports=..., or easypruner.plugins.load_plugins([DIR])'
)


def note_absent(plugins: Iterable[AbsentPlugin]) -> None:
    """Store the plugins that are not loaded, for messages about unknown names."""
    _absent[:] = plugins


def build(registry: ComponentRegistry, config: Any, *, path: str = '', **defaults: Any) -> Any:
    """Build a component, and the components among its arguments, from a config dict.

    The key ``type`` names the class, and the other keys are the arguments of its constructor. An
    argument is built as a component as well if it is a dict and its name is ``source``,
    ``budget``, ``regularizer``, ``stage``, ``runtime`` or ``handler``. The same holds for every
    dict in a list under the plural of such a name, and in a list under ``budget``; a list of
    runtimes may have their names. All other arguments are passed to the constructor unchanged. A
    component that is already built is returned.

    Args:
        registry: the registry of the expected kind.
        config: ``dict(type='ClassName', ...)``.
        path: the path of ``config`` in the whole config, such as ``stages[1]``; for messages.
        **defaults: arguments that are used if ``config`` does not have them.

    Raises:
        ConfigError: ``config`` has mistakes; the message has all of them, each with its path:
            unknown types, unknown and missing arguments, and errors of constructors.
    """
    mistakes = Mistakes()
    component = _build(registry, config, defaults, path, mistakes)
    mistakes.raise_all()
    return component


def build_list(registry: ComponentRegistry, configs: Any, *, path: str = '') -> list[Any]:
    """Build every component of a list; see :func:`build`.

    Raises:
        ConfigError: the configs have mistakes; the message has all of them.
    """
    mistakes = Mistakes()
    components = _build_list(registry, configs, path, mistakes)
    mistakes.raise_all()
    return components


def _build_list(
    registry: ComponentRegistry, configs: Any, path: str, mistakes: Mistakes
) -> list[Any]:
    if not isinstance(configs, list | tuple):
        mistakes.add(f'expected a list of {registry.kind}s, got {shown(configs)}', path)
        return []
    return [
        _build(registry, _named(registry, config), {}, f'{path}[{number}]', mistakes)
        for number, config in enumerate(configs)
    ]


def _named(registry: ComponentRegistry, config: Any) -> Any:
    """Return the dict of a runtime that is given by its name; else what is given."""
    return {'type': config} if registry is RUNTIMES and isinstance(config, str) else config


def _build(
    registry: ComponentRegistry,
    config: Any,
    defaults: Mapping[str, Any],
    path: str,
    mistakes: Mistakes,
) -> Component | None:
    """Return the component, or None if ``config`` has mistakes."""
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
        component = _construct(cls, arguments)
        for fault in type_faults(cls, arguments):
            mistakes.add(fault, path)
        return component
    return None


def _find_class(
    registry: ComponentRegistry, config: Any, path: str, mistakes: Mistakes
) -> type[Component] | None:
    if not isinstance(config, Mapping) or 'type' not in config:
        mistakes.add(f"expected a {registry.kind}, dict(type='...'), got {shown(config)}", path)
        return None
    name = config['type']
    found: type[Component] | None = registry.class_of(config)
    if found is None:
        mistakes.add(f'unknown {registry.kind} {name!r}; {hint(registry, name)}', path)
    return found


def hint(registry: ComponentRegistry, name: Any) -> str:
    """Return what a name that a registry does not have may be."""
    known = _other_kind(name) or _absent_plugins(name)
    return known or f'{nearest(str(name), registry.classes)}; {_OF_THE_USER}'


def _other_kind(name: Any) -> str:
    """Return a hint if the name is that of a component of another kind, else ''."""
    kinds = [r.kind for r in REGISTRIES if isinstance(name, str) and name in r.classes]
    return f'this is a {kinds[0]}' if kinds else ''


def _absent_plugins(name: Any) -> str:
    """Return a hint if plugins that are not loaded define the name, else ''."""
    found = [plugin for plugin in _absent if isinstance(name, str) and plugin.has(name)]
    return ' and '.join(f'{plugin}, which defines it, {plugin.absence}' for plugin in found)


def _build_argument(name: str, value: Any, path: str, mistakes: Mistakes) -> Any:
    for registry in REGISTRIES:
        is_one = name == registry.parameter
        is_list = name == f'{registry.parameter}s' or (is_one and registry is BUDGETS)
        if is_list and isinstance(value, list | tuple):
            return _build_list(registry, value, path, mistakes)
        if is_one and isinstance(value, Mapping):
            return _build(registry, value, {}, path, mistakes)
        # A component that takes a runtime takes its name as well.
        named = registry is not RUNTIMES and isinstance(value, str)
        if is_one and named and value in registry.classes:
            mistakes.add(
                f'got the name {value!r}; expected a {registry.kind}, dict(type={value!r})', path
            )
    return value


def _check_arguments(
    cls: type[Component], arguments: Mapping[str, Any], path: str, mistakes: Mistakes
) -> None:
    parameters = inspect.signature(cls).parameters.values()
    named = {p.name: p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        for name in arguments:
            if name not in named:
                hint = nearest(str(name), named)
                mistakes.add(f'{cls.__name__} has no argument {name!r}; {hint}', path)
    for name, parameter in named.items():
        if parameter.default is parameter.empty and name not in arguments:
            mistakes.add(f'the argument {name!r} of {cls.__name__} is missing', path)


def _construct(cls: type[Component], arguments: Mapping[str, Any]) -> Component:
    try:
        component = cls(**arguments)
    except EasyPrunerError:
        raise
    # These come from values of a wrong type or size. Others, such as an OSError, have other causes.
    except (TypeError, ValueError, AttributeError, LookupError, ArithmeticError) as error:
        faults = list(type_faults(cls, arguments))
        if faults:
            raise EasyPrunerError('; '.join(faults)) from error
        given = ', '.join(f'{name}={shown(value)}' for name, value in arguments.items())
        raise EasyPrunerError(
            f'{cls.__name__}({given}) cannot be built: {type(error).__name__}: {error}'
        ) from error
    check_instance(component)
    return component
