"""The tables and pictures that plugins add to a report with the hook easypruner_report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pluggy

from easypruner.base.describe import describe
from easypruner.errors import PluginError
from easypruner.report.result import Artifact, RunResult


def collect_artifacts(
    manager: pluggy.PluginManager | None, runs: Sequence[RunResult]
) -> tuple[Artifact, ...]:
    """Call the hook easypruner_report of every plugin, and return all artifacts.

    Raises:
        PluginError: a plugin returned something other than artifacts.
    """
    if manager is None:
        return ()
    artifacts: list[Artifact] = []
    hook = manager.hook.easypruner_report
    # pluggy calls hooks in the reverse order of registration.
    for implementation in reversed(hook.get_hookimpls()):
        others = [plugin for plugin in manager.get_plugins() if plugin is not implementation.plugin]
        for contribution in manager.subset_hook_caller(hook.name, others)(runs=runs):
            artifacts += _checked(contribution, implementation.plugin_name)
    return tuple(artifacts)


def _checked(contribution: Any, plugin: str) -> list[Artifact]:
    listed = isinstance(contribution, Iterable) and not isinstance(contribution, str | Mapping)
    found: list[Any] = list(contribution) if listed else [contribution]
    if not (listed and all(isinstance(value, Artifact) for value in found)):
        got = describe(found if listed else contribution)
        raise PluginError(
            f'easypruner_report returned {got}, expected a list of '
            f'easypruner.report.result.Artifact: plugin {plugin}'
        )
    return found
