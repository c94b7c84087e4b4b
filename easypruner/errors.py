"""The errors EasyPruner raises for what a user can mend: one base class, exit code 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class EasyPrunerError(ValueError):
    """Something the user gave cannot be used as it is.

    The message says what was met, what was expected and what to do. The command line
    prints it without a traceback and exits with code 2.
    """


class ConfigError(EasyPrunerError):
    """One or more mistakes of a config, collected and raised together."""


class PluginError(EasyPrunerError):
    """A plugin that cannot be imported, misspells a hook, or clashes with another."""


class MaskError(EasyPrunerError):
    """Masks that do not fit the channel graph they are used with."""


class BudgetError(EasyPrunerError):
    """A limit that no mask can meet."""


class RecordError(EasyPrunerError):
    """An architecture record that is damaged or belongs to another model."""


class TraceError(EasyPrunerError):
    """A model whose forward pass cannot be recorded."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint that names the closest known spelling, or lists what is known.

    >>> nearest('BNScal', ['BNScale', 'Random'])
    "did you mean 'BNScale'?"
    >>> nearest('x', ['b', 'a'])
    'known names: a, b'
    """
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return f'did you mean {close[0]!r}?'
    return 'known names: ' + (', '.join(names) or 'none')
