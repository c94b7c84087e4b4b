"""Building the stages of a config. A stage that stands for several is replaced by these."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from easypruner.errors import Mistakes
from easypruner.plugins.registry import STAGES, build
from easypruner.strategies import Stage


@dataclass(frozen=True)
class PlannedStage:
    """A stage of a run, with the config that it was built from.

    Attributes:
        stage: the stage.
        config: the config of this stage.
        location: the path of this config in the run's config, such as ``stages[1]``; for messages.
    """

    stage: Stage
    config: Mapping[str, Any]
    location: str


def expand(stages: Any, mistakes: Mistakes, location: str = 'stages') -> list[PlannedStage]:
    """Build a list of stages, and replace each stage that stands for several by these.

    Args:
        stages: the list of a config, ``[dict(type=...), ...]``.
        mistakes: gets the mistakes in the stages; stages with mistakes are left out of the result.
        location: the path of the list in the config.
    """
    if not isinstance(stages, list | tuple):
        mistakes.add(f'expected a list of stages, got {stages!r}', location)
        return []
    return [
        planned
        for number, config in enumerate(stages)
        for planned in _built(config, f'{location}[{number}]', mistakes)
    ]


def _built(config: Any, location: str, mistakes: Mistakes) -> Iterator[PlannedStage]:
    """Yield the stage of a config, or the stages that it stands for."""
    with mistakes.collect():
        stage: Stage = build(STAGES, config, path=location)
        inner = stage.expand()
        if inner is None:
            yield PlannedStage(stage, config, location)
        for each in inner or ():
            name = each.get('name') or each.get('type')
            yield from _built(each, f'{location} ({name})', mistakes)
