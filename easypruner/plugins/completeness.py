"""Checks that classes and instances implement their contract, beyond those of Python."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable

from easypruner.base.component import Component
from easypruner.errors import PluginError
from easypruner.strategies.regularizers.regularizer import Regularizer
from easypruner.strategies.sources.source import MaskSource
from easypruner.strategies.stages.stage import Stage

_EITHER: dict[type[Component], tuple[str, ...]] = {
    MaskSource: ('score', 'select'),
    Regularizer: ('penalty', 'add_gradient', 'forward_penalty'),
}
"""Contract -> the methods of which a class has to define at least one."""

_SET: dict[type[Component], tuple[str, ...]] = {
    MaskSource: ('budget', 'reduction', 'normalization'),
    Regularizer: ('strength', 'ramp', 'group_strengths'),
    Stage: ('name',),
}
"""Contract -> the attributes that the contract's constructor sets."""

_TYPO = 0.7


def find_fault(cls: type[Component]) -> str:
    """Return what a class misses, such as 'does not define run'; '' if it is complete."""
    if inspect.isabstract(cls):
        abstract = sorted(getattr(cls, '__abstractmethods__', ()))
        return f'does not define {", ".join(abstract)}{_misspelt(cls, abstract)}'
    for contract, names in _EITHER.items():
        if issubclass(cls, contract) and all(
            getattr(cls, n) is getattr(contract, n) for n in names
        ):
            *others, last = (f'{name}()' for name in names)
            return f'defines neither {", ".join(others)} nor {last}{_misspelt(cls, names)}'
    return ''


def check_instance(component: Component) -> None:
    """Check that a component implements its contract.

    Raises:
        PluginError: a method of the contract is not defined, or the contract's constructor was not
            called.
    """
    cls = type(component)
    fault = find_fault(cls)
    if fault:
        raise PluginError(f'{cls.__name__} {fault}')
    for contract, names in _SET.items():
        missing = [name for name in names if not hasattr(component, name)]
        if isinstance(component, contract) and missing:
            raise PluginError(
                f'{cls.__name__} has no {missing[0]!r}, which the constructor of '
                f'{contract.__name__} sets; call super().__init__() in {cls.__name__}.__init__()'
            )


def _misspelt(cls: type[Component], names: Iterable[str]) -> str:
    """Return a hint if a method of the class has almost one of these names, else ''."""
    own = {
        name
        for base in cls.__mro__
        if base.__module__.split('.')[0] != 'easypruner'
        for name, value in vars(base).items()
        if callable(value) or isinstance(value, property)
    }
    for name in names:
        close = difflib.get_close_matches(name, own - {name}, n=1, cutoff=_TYPO)
        if close:
            return f'; is its {close[0]} meant to be {name}?'
    return ''
