"""Arguments of commands: the fields of a dataclass define the options of a command."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from easypruner.plugins import Plugins

_Arguments = TypeVar('_Arguments')
_Value = TypeVar('_Value')


def positional(text: str, **settings: Any) -> Any:
    """Declare a field as a positional argument.

    Args:
        text: the text for --help.
        **settings: other arguments of argparse's ``add_argument()``.
    """
    return field(metadata={'short': None, 'settings': {'help': text, **settings}})


def option(text: str, *short: str, **settings: Any) -> Any:
    """Declare a field as an option, which is called like the field.

    Args:
        text: the text for --help.
        *short: short names of the option, such as ``-v``.
        **settings: other arguments of argparse's ``add_argument()``.
    """
    return field(metadata={'short': short, 'settings': {'help': text, **settings}})


def flag(text: str, *short: str) -> Any:
    """Declare a field as an option without a value: True if it is given, else False."""
    return option(text, *short, action='store_true')


def repeated(text: str, metavar: str) -> Any:
    """Declare a field as an option that may be given several times: the list of its values."""
    return option(f'{text}; may be repeated', action='append', default=[], metavar=metavar)


def expecting(what: str) -> Callable[[Callable[[str], _Value]], Callable[[str], _Value]]:
    """Let a function that converts the text of an option say what it expects.

    Args:
        what: what the function accepts; it raises ValueError for anything else.
    """

    def decorated(convert: Callable[[str], _Value]) -> Callable[[str], _Value]:
        @functools.wraps(convert)
        def checked(text: str) -> _Value:
            try:
                return convert(text)
            except ValueError:
                raise argparse.ArgumentTypeError(f'got {text!r}; expected {what}') from None

        return checked

    return decorated


@expecting('a number of seconds of at least 0')
def parse_seconds(text: str) -> float:
    """Convert the text of an option to a finite number of seconds, at least 0."""
    seconds = float(text)
    if not 0 <= seconds <= 1e6:
        raise ValueError
    return seconds


@dataclass(frozen=True, kw_only=True)
class CommonArguments:
    """The arguments of every command."""

    verbose: bool = flag('show all logs, and tracebacks of errors', '-v')


@dataclass(frozen=True, kw_only=True)
class PluginArguments(CommonArguments):
    """The arguments of commands that load plugins."""

    plugins: Sequence[str] = repeated('load each file in this folder as a plugin', 'DIR')
    skip_broken_plugins: bool = flag('skip plugins that cannot be loaded')
    disable_plugin: Sequence[str] = repeated('do not load this plugin', 'NAME')

    def load_plugins(self, custom_imports: Any = ()) -> Plugins:
        """Load the plugins.

        Args:
            custom_imports: the ``custom_imports`` of a config.

        Raises:
            PluginError: a plugin cannot be used; see :func:`easypruner.plugins.load_plugins`.
        """
        # This package imports torch, and --help has to be fast.
        from easypruner.plugins import load_plugins

        return load_plugins(
            self.plugins, custom_imports, self.skip_broken_plugins, self.disable_plugin
        )


def add_command(
    commands: Any,
    name: str,
    arguments: type[_Arguments],
    run: Callable[[_Arguments], int],
    summary: str,
) -> None:
    """Add a command to the command line.

    Args:
        commands: the subparsers of the command line.
        name: the name of the command.
        arguments: a dataclass whose fields are declared by the functions above.
        run: a function that runs the command and returns its exit code.
        summary: the text for --help.
    """
    parser: argparse.ArgumentParser = commands.add_parser(name, help=summary, description=summary)
    entries = fields(arguments)  # type: ignore[arg-type]
    for entry in entries:
        short, long = entry.metadata['short'], f'--{entry.name.replace("_", "-")}'
        names = [entry.name] if short is None else [*short, long]
        parser.add_argument(*names, **entry.metadata['settings'])
    parser.set_defaults(
        parser=parser,
        run=lambda parsed: run(arguments(**{e.name: getattr(parsed, e.name) for e in entries})),
    )
