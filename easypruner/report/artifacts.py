"""What plugins add to a report: the results of the hook easypruner_report, checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from easypruner.errors import PluginError
from easypruner.report.result import Artifact, RunResult

if TYPE_CHECKING:
    import pluggy


def collect_artifacts(
    manager: pluggy.PluginManager | None, runs: Sequence[RunResult]
) -> tuple[Artifact, ...]:
    """Ask every plugin what it adds to a report over ``runs``.

    Raises:
        PluginError: a plugin returned something else than artifacts.
    """
    if manager is None:
        return ()
    artifacts: list[Artifact] = []
    for contribution in manager.hook.easypruner_report(runs=runs):
        for artifact in contribution:
            if not isinstance(artifact, Artifact):
                plugins = ', '.join(
                    implementation.plugin_name
                    for implementation in manager.hook.easypruner_report.get_hookimpls()
                )
                raise PluginError(
                    f'easypruner_report returned a {type(artifact).__name__}, expected '
                    f'easypruner.report.result.Artifact; plugins with this hook: {plugins}'
                )
            artifacts.append(artifact)
    return tuple(artifacts)
