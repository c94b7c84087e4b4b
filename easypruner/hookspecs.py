"""The hooks that a plugin can implement. The reference in docs/plugins.md comes from this file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from mmengine.runner import Runner

    from easypruner.report.result import Artifact, RunResult
    from easypruner.strategies import Component
    from easypruner.strategies.stages.state import PruningState

GROUP = 'easypruner'
"""The name of pluggy's project, and of the entry-point group of installed plugins."""

hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)


@hookspec
def easypruner_components() -> Iterable[type[Component]]:  # type: ignore[empty-body]
    """Return the classes that this plugin contributes.

    Each class is a subclass of one of the contracts of ``easypruner``: ``MaskSource``, ``Budget``,
    ``Regularizer``, ``Stage``, ``Transform``, ``Runtime``, ``LayerHandler`` or
    ``OptimizerHandler``. A config uses a class by its name, as in
    ``source=dict(type='MySource', budget=...)``. The other keys of this dict are the arguments of
    the constructor. The constructor should check them and raise
    ``ValueError`` for a bad one. It should not do slow work, because every component of a config is
    built before the run starts.

    EasyPruner calls this hook once, when it loads plugins. The name of a class must be unique
    among all components of a kind.
    """


@hookspec
def easypruner_configure_runner(runner: Runner, state: PruningState) -> None:
    """Change a runner before it runs, for example register hooks or replace the visualizer.

    EasyPruner calls this hook for every MMEngine runner that a stage builds, in every process of a
    distributed run, after the runner is built and before it loads weights or resumes.

    Args:
        runner: the runner, an ``mmengine.runner.Runner``.
        state: the state of the run: its config, work directory, masks and finished stages.
    """


@hookspec
def easypruner_report(runs: Sequence[RunResult]) -> Iterable[Artifact]:  # type: ignore[empty-body]
    """Return the tables and figures that this plugin adds to a report.

    Each of them is an ``easypruner.report.result.Artifact``, as in
    ``[Artifact('Latency', columns=('run', 'ms'), rows=(('l1', '3.1'),))]``.

    EasyPruner calls this hook at the end of a run, with this run only. ``easypruner compare`` calls
    it with all compared runs, in the order of its arguments, and puts tables and pictures into
    sections of the page ``report.html``.

    Args:
        runs: finished runs, ``easypruner.report.result.RunResult``.
    """


HOOKS = tuple(name for name in globals() if name.startswith(f'{GROUP}_'))
"""The names of all hooks."""
