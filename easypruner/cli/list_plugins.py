"""The command ``easypruner plugins``: lists components and plugins, as a table or as JSON."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from easypruner.cli.options import PluginArguments, flag

if TYPE_CHECKING:
    from easypruner.plugins import ComponentInfo, Plugins

COLUMNS = ('kind', 'name', 'summary', 'plugin', 'version', 'origin')


@dataclass(frozen=True, kw_only=True)
class ListArguments(PluginArguments):
    """The arguments of ``easypruner plugins``."""

    json: bool = flag('print JSON instead of a table')


def list_plugins(arguments: ListArguments) -> int:
    """List all components and plugins.

    Raises:
        PluginError: a plugin cannot be used.
    """
    plugins = arguments.load_plugins()
    if arguments.json:
        print(json.dumps(_as_dict(plugins), indent=2))
    else:
        _print(plugins)
    return 0


def _print(plugins: Plugins) -> None:
    # These modules import rich, and --help has to be fast.
    from rich.console import Console

    from easypruner.report.text import make_table, natural_width, print_lines

    rows = [tuple(_row(component).values()) for component in plugins.components]
    table = make_table('Components', COLUMNS, rows, left=len(COLUMNS))
    # Lines in a pipe are not folded, so that they can be searched.
    console = Console(width=None if sys.stdout.isatty() else natural_width(table))
    console.print(table)
    hooks = [
        f'{hook}: {plugin}'
        for plugin in plugins.plugins
        for hook in plugin.hooks
        if hook != 'easypruner_components'
    ]
    print_lines(console, 'Other hooks', hooks)
    rules = [f'{name}: {plugin}' for plugin in plugins.plugins for name in plugin.rules]
    print_lines(console, 'Rules for operations', rules)
    absent = [f'{name}: {packages}: {command}' for name, packages, command in _absent(plugins)]
    print_lines(console, 'Not installed', absent)
    disabled = [f'{p.address}, {p.origin}, by {p.by}' for p in plugins.disabled]
    print_lines(console, 'Disabled', disabled)
    print_lines(console, 'Skipped', [p.reason for p in plugins.skipped], style='yellow')


def _absent(plugins: Plugins) -> Iterator[tuple[str, str, str]]:
    """Yield runtime, its packages that are not installed, and the command that installs them."""
    for component in plugins.components:
        packages = _missing(component)
        if packages:
            runtime: Any = component.cls
            yield component.name, ', '.join(packages), runtime.install_command(packages)


def _missing(component: ComponentInfo) -> tuple[str, ...]:
    """Return the packages that a runtime needs and that are not installed."""
    from easypruner.runtimes import Runtime

    return component.cls.missing() if issubclass(component.cls, Runtime) else ()


def _row(component: ComponentInfo) -> dict[str, str]:
    return {
        'kind': component.kind,
        'name': component.name,
        'summary': component.summary,
        'plugin': component.plugin.address,
        'version': component.plugin.version,
        'origin': component.plugin.origin,
    }


def _needs(component: ComponentInfo) -> dict[str, object]:
    """Return what JSON says about the packages of a runtime."""
    return {'missing': list(_missing(component))} if component.kind == 'runtime' else {}


def _as_dict(plugins: Plugins) -> dict[str, list[dict[str, object]]]:
    return {
        'components': [{**_row(c), 'file': c.plugin.file, **_needs(c)} for c in plugins.components],
        'plugins': [dataclasses.asdict(plugin) for plugin in plugins.plugins],
        'disabled': [dataclasses.asdict(plugin) for plugin in plugins.disabled],
        'skipped': [dataclasses.asdict(plugin) for plugin in plugins.skipped],
    }
