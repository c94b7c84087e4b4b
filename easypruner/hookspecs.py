"""The hooks a plugin may implement. The pages on plugins are generated from this file."""

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
"""The project name of all markers, and the entry-point group of installed plugins."""

hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)


@hookspec
def easypruner_components() -> Iterable[type[Component]]:  # type: ignore[empty-body]
    """Return the classes this plugin contributes.

    Each is a subclass of one of the contracts of ``easypruner``: ``MaskSource``, ``Budget``,
    ``Regularizer``, ``Stage`` or ``LayerHandler``. The contract decides where the class is
    registered; a config then names it by its class name, as in
    ``source=dict(type='MySource', budget=...)``. The keys beside ``type`` are the arguments of
    its constructor, which should check them and raise ``ValueError`` on a bad one, and do
    nothing that takes long: every component of a config is built before the run starts.

    Called once, when plugins are loaded. Class names are unique among all components of a kind.
    """


@hookspec
def easypruner_configure_runner(runner: Runner, state: PruningState) -> None:
    """Change a training runner before it runs: register hooks, swap the visualizer, ...

    Called on every MMEngine runner that a stage builds, in every process of a distributed run,
    after the runner is built and before it loads weights or resumes.

    Args:
        runner: the runner, an ``mmengine.runner.Runner``.
        state: where the run stands: its config, work directory, masks and finished stages.
    """


@hookspec
def easypruner_report(runs: Sequence[RunResult]) -> Iterable[Artifact]:  # type: ignore[empty-body]
    """Return the tables and figures this plugin adds to a report.

    Each is an ``easypruner.report.result.Artifact``, as in
    ``[Artifact('Latency', columns=('run', 'ms'), rows=(('l1', '3.1'),))]``.

    Called at the end of a run with that run alone, and by ``easypruner compare`` with all runs
    that are compared, in the order given.

    Args:
        runs: finished runs, ``easypruner.report.result.RunResult``.
    """


HOOKS = tuple(name for name in globals() if name.startswith(f'{GROUP}_'))
"""The names of all hooks."""
