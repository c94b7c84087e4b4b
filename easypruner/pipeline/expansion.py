"""Expansion: a stage of a config that stands for several is replaced by these."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from easypruner.contracts import Stage
from easypruner.errors import Mistakes
from easypruner.registry import STAGES, build


def expanded(stages: Any) -> Any:
    """Return a config's stages, each that stands for several replaced by these.

    What is no list of stages is returned as it is: the check of the config tells.

    Args:
        stages: a list of ``dict(type=..., ...)``.

    Raises:
        ConfigError: all mistakes of the stages that stand for others.
    """
    if not isinstance(stages, list | tuple):
        return stages
    mistakes = Mistakes()
    result = _expanded(stages, 'stages', mistakes)
    mistakes.raise_all()
    return result


def _expanded(stages: Any, path: str, mistakes: Mistakes) -> list[Any]:
    result: list[Any] = []
    for place, config in enumerate(stages):
        here = f'{path}[{place}]'
        if not _stands_for_others(config):
            result.append(config)
            continue
        with mistakes.collect():
            stage: Stage = build(STAGES, config, path=here)
            result += _expanded(stage.expand() or (), here, mistakes)
    return result


def _stands_for_others(config: Any) -> bool:
    cls = STAGES.class_of(config) if isinstance(config, Mapping) else None
    return cls is not None and cls.expand is not Stage.expand
