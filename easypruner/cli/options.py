"""Options: what several commands have in common, and typed arguments from what was parsed."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from easypruner.plugins import Plugins

_Arguments = TypeVar('_Arguments')

Commands = Any
"""Argparse's subparsers: a command adds its parser to them."""


@dataclass(frozen=True)
class PluginOptions:
    """Which plugins a command loads.

    Attributes:
        folders: their files are plugins too.
        skip_broken: pass over plugins that do not load.
        disabled: names of plugins that are not loaded.
    """

    folders: tuple[str, ...] = ()
    skip_broken: bool = False
    disabled: tuple[str, ...] = ()

    def load(self, custom_imports: Any = ()) -> Plugins:
        """Load the plugins.

        Args:
            custom_imports: those of a config.

        Raises:
            PluginError: one cannot be used; see :func:`easypruner.plugins.load_plugins`.
        """
        # The package needs torch, for which --help need not wait.
        from easypruner.plugins import load_plugins

        return load_plugins(self.folders, custom_imports, self.skip_broken, self.disabled)


def add_command(
    commands: Commands,
    name: str,
    arguments: type[_Arguments],
    run: Callable[[_Arguments], int],
    summary: str,
) -> argparse.ArgumentParser:
    """Add the parser of a command.

    Args:
        commands: to add it to.
        name: of the command.
        arguments: a dataclass; each of its fields is an option of the parser of that name, or
            ``plugins``, whose options are added here.
        run: called with the arguments; returns the exit code.
        summary: for --help.
    """
    parser: argparse.ArgumentParser = commands.add_parser(name, help=summary, description=summary)
    parser.set_defaults(run=lambda parsed: run(_typed(arguments, parsed)))
    parser.add_argument(
        '-v', '--verbose', action='store_true', help='show all logs, and tracebacks of errors'
    )
    if any(field.name == 'plugins' for field in fields(arguments)):  # type: ignore[arg-type]
        _add_plugin_options(parser)
    return parser


def _add_plugin_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--plugins',
        action='append',
        default=[],
        metavar='DIR',
        help='folder whose files are plugins too; may be given several times',
    )
    parser.add_argument(
        '--skip-broken-plugins', action='store_true', help='pass over plugins that do not load'
    )
    parser.add_argument(
        '--disable-plugin',
        action='append',
        default=[],
        metavar='NAME',
        help='do not load this plugin; may be given several times',
    )


def _typed(arguments: type[_Arguments], parsed: argparse.Namespace) -> _Arguments:
    values = vars(parsed)
    given = {field.name: values[field.name] for field in fields(arguments)}  # type: ignore[arg-type]
    if 'plugins' in given:
        given['plugins'] = PluginOptions(
            tuple(parsed.plugins), parsed.skip_broken_plugins, tuple(parsed.disable_plugin)
        )
    return arguments(**given)
