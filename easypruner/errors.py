"""The errors EasyPruner raises for what a user can mend: one base class, exit code 2."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterable, Iterator


class EasyPrunerError(ValueError):
    """Something the user gave cannot be used as it is.

    The message says what was met, what was expected and what to do. The command line
    prints it without a traceback and exits with code 2.
    """


class ConfigError(EasyPrunerError):
    """One or more mistakes of a config, collected and raised together.

    >>> print(ConfigError('stages[0]: no type', "stages[1]: unknown type 'Trian'"))
    2 mistakes:
      - stages[0]: no type
      - stages[1]: unknown type 'Trian'
    """

    @property
    def mistakes(self) -> tuple[str, ...]:
        """Return one message for each mistake."""
        return self.args

    def __str__(self) -> str:
        if len(self.args) == 1:
            return str(self.args[0])
        return '\n  - '.join([f'{len(self.args)} mistakes:', *self.args])


class PluginError(EasyPrunerError):
    """A plugin that cannot be imported, misspells a hook, or clashes with another."""


class MaskError(EasyPrunerError):
    """Masks that do not fit the channel graph they are used with."""


class BudgetError(EasyPrunerError):
    """A limit that no mask can meet."""


class CutError(EasyPrunerError):
    """A cut that an optimizer, a copy or a wrapper of the model would not survive."""


class RecordError(EasyPrunerError):
    """An architecture record that is damaged or belongs to another model."""


class TraceError(EasyPrunerError):
    """A model whose forward pass cannot be recorded."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint that names the closest known spelling, or lists what is known.

    Letters' case does not count.

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
    return 'known names: ' + (', '.join(names) or 'none')


class Mistakes:
    """A list of what is wrong with a config, to be raised together.

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
        return tuple(self._found)

    def add(self, message: str, path: str = '') -> None:
        """Note a mistake at ``path`` of the config, such as ``stages[1].source``."""
        self._found.append(f'{path}: {message}' if path else message)

    @contextlib.contextmanager
    def collect(self, path: str = '') -> Iterator[None]:
        """Note any EasyPrunerError of the block instead of letting it end the check."""
        try:
            yield
        except ConfigError as error:
            for mistake in error.mistakes:
                self.add(mistake, path)
        except EasyPrunerError as error:
            self.add(str(error), path)

    def raise_all(self) -> None:
        """Raise what was found, if anything, as one ConfigError."""
        if self._found:
            raise ConfigError(*self._found)
