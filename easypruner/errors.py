"""Errors that a user can fix. They share one base class, and a command ends with exit code 2."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterable, Iterator


class EasyPrunerError(ValueError):
    """Base class of all errors that a user can fix.

    The message says what EasyPruner got, what it expected and what to do. The command line prints
    the message without a traceback and exits with code 2.
    """


class ConfigError(EasyPrunerError):
    """One or more mistakes in a config, raised together.

    >>> print(ConfigError('stages[0]: no type', "stages[1]: unknown type 'Trian'"))
    2 mistakes:
      - stages[0]: no type
      - stages[1]: unknown type 'Trian'
    """

    @property
    def mistakes(self) -> tuple[str, ...]:
        """One message for each mistake."""
        return self.args

    def __str__(self) -> str:
        if len(self.args) == 1:
            return str(self.args[0])
        return '\n  - '.join([f'{len(self.args)} mistakes:', *self.args])


class MasksMissingError(ConfigError):
    """A regularizer pushes what masks remove, but there are no masks yet."""


class PluginError(EasyPrunerError):
    """A plugin cannot be imported, implements its contract wrongly, or clashes with another."""


class MaskError(EasyPrunerError):
    """Masks do not fit the channel graph."""


class BudgetError(EasyPrunerError):
    """No masks can meet a limit."""


class CutError(EasyPrunerError):
    """An optimizer, a copy or a wrapper of the model would not work after the cut."""


class RecordError(EasyPrunerError):
    """An architecture record is damaged or belongs to another model."""


class UnknownTransformError(RecordError):
    """A network record has a transform of a class that no loaded plugin defines."""


class TraceError(EasyPrunerError):
    """The forward pass of a model cannot be recorded."""


class Interrupted(KeyboardInterrupt):
    """A run was interrupted, by Ctrl-C or SIGTERM.

    Args:
        *arguments: the arguments with which the same command goes on.
    """

    def __init__(self, *arguments: str) -> None:
        super().__init__(*arguments)
        self.arguments = arguments


_MOST_NAMES = 40


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint that names the closest known name, or lists known names.

    The comparison ignores case.

    >>> nearest('bnscal', ['BNScale', 'Random'])
    "did you mean 'BNScale'?"
    >>> nearest('x', ['b', 'a'])
    'known names: a, b'
    """
    names = sorted(known)
    by_lower = {spelling.lower(): spelling for spelling in names}
    close = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6)
    if close:
        return f'did you mean {by_lower[close[0]]!r}?'
    more = len(names) - _MOST_NAMES
    listed = ', '.join(names[:_MOST_NAMES]) + (f' and {more} more' if more > 0 else '')
    return f'known names: {listed or "none"}'


def missing_package(package: str, module: str) -> ImportError:
    """Return the error for a module that needs an optional package, an extra of EasyPruner.

    >>> print(missing_package('lightning', 'easypruner.integrations.lightning'))
    easypruner.integrations.lightning needs lightning: pip install "easypruner[lightning]"
    """
    return ImportError(f'{module} needs {package}: pip install "easypruner[{package}]"')


class Mistakes:
    """A list of mistakes in a config, to be raised together.

    >>> mistakes = Mistakes()
    >>> with mistakes.collect('data_root'):
    ...     raise EasyPrunerError("there is no folder 'data/imagenet'")
    >>> mistakes.found
    ("data_root: there is no folder 'data/imagenet'",)
    """

    def __init__(self) -> None:
        self._found: list[str] = []

    @property
    def found(self) -> tuple[str, ...]:
        """The messages so far."""
        return tuple(self._found)

    def add(self, message: str, path: str = '') -> None:
        """Add a mistake at a path of the config, such as ``stages[1].source``."""
        self._found.append(f'{path}: {message}' if path else message)

    @contextlib.contextmanager
    def collect(self, path: str = '') -> Iterator[None]:
        """Add an EasyPrunerError that the block raises, instead of ending the check with it."""
        try:
            yield
        except ConfigError as error:
            for mistake in error.mistakes:
                self.add(mistake, path)
        except EasyPrunerError as error:
            self.add(str(error), path)

    def raise_all(self) -> None:
        """Raise one ConfigError with all mistakes, if there are any."""
        if self._found:
            raise ConfigError(*self._found)
