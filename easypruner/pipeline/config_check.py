"""The check of a config without a run: everything that a run checks before its first stage."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pluggy
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope

from easypruner.base.randomness import seed_everything
from easypruner.engine.compat import prepare, quiet
from easypruner.engine.config import DEFAULT_SCOPE
from easypruner.engine.runner import Tracer
from easypruner.errors import Mistakes
from easypruner.graph.graph import WidthGrids
from easypruner.pipeline.preflight import check, expand, list_warnings
from easypruner.plugins.handlers import plugin_handlers, plugin_transforms
from easypruner.plugins.targets import target_of
from easypruner.report.text import report_console
from easypruner.strategies.stages.state import Run


def check_config(config: Config, name: str, manager: pluggy.PluginManager, seed: int) -> list[str]:
    """Check a whole config as a run does before its first stage: keys, stages, data, one batch.

    Args:
        config: the config.
        name: the name of the config.
        manager: the plugin manager.
        seed: the seed.

    Returns:
        the warnings of the plan.

    Raises:
        ConfigError: the config has mistakes; the message has all of them.
    """
    mistakes = Mistakes()
    stages = expand(config.get('stages') or [], mistakes)
    config.stages = [planned.config for planned in stages]
    prepare()
    quiet(MMLogger.get_current_instance())
    run = Run(
        config=config,
        name=name,
        work_dir=Path(name).resolve(),
        seed=seed,
        manager=manager,
        console=report_console(),
        trace=Tracer(config, plugin_handlers(), target_in(config, mistakes)),
        handlers=plugin_handlers(),
        transforms=plugin_transforms(),
    )
    init_default_scope(config.get('default_scope', DEFAULT_SCOPE))
    seed_everything(seed)
    return list_warnings(check(run, stages, mistakes))


def target_in(config: Config, mistakes: Mistakes) -> WidthGrids | None:
    """Return the target of a config: the runtime, or all runtimes, that its widths suit."""
    options = config.get('graph')
    with mistakes.collect('graph'):
        given = options.get('target') if isinstance(options, Mapping) else None
        return target_of(given, implied=True)
    return None
