"""Expansion: a stage of a config that stands for several is replaced by these."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from easypruner.errors import ConfigError, Mistakes
from easypruner.plugins.registry import STAGES, build
from easypruner.strategies import Stage


@dataclass(frozen=True)
class Expansion:
    """The stages of a config, each that stands for several replaced by these.

    Attributes:
        stages: their configs; what is no list of stages is here as it was given.
        places: where each stands in the config, such as ``stages[1]``; for messages.
        mistakes: of stages that stand for others, which are then left out.
    """

    stages: Any
    places: tuple[str, ...] = ()
    mistakes: tuple[str, ...] = ()


def expand(stages: Any) -> Expansion:
    """Expand a config's stages.

    Args:
        stages: a list of ``dict(type=..., ...)``; of anything else the check of the config tells.
    """
    if not isinstance(stages, list | tuple):
        return Expansion(stages)
    mistakes = Mistakes()
    found = [
        pair
        for place, config in enumerate(stages)
        for pair in _replaced(config, f'stages[{place}]', mistakes)
    ]
    places = tuple(place for place, _ in found)
    return Expansion([config for _, config in found], places, mistakes.found)


def expanded(stages: Sequence[Any]) -> list[Any]:
    """Return the stages of an :class:`Expansion`.

    Raises:
        ConfigError: all mistakes of the stages that stand for others.
    """
    expansion = expand(stages)
    if expansion.mistakes:
        raise ConfigError(*expansion.mistakes)
    return list(expansion.stages)


def _replaced(config: Any, place: str, mistakes: Mistakes) -> Iterator[tuple[str, Any]]:
    """Yield place and config of what a stage stands for, or of itself."""
    if not _stands_for_others(config):
        yield place, config
        return
    with mistakes.collect():
        stage: Stage = build(STAGES, config, path=place)
        for inner in stage.expand() or ():
            name = inner.get('name') or inner.get('type')
            yield from _replaced(inner, f'{place} ({name})', mistakes)


def _stands_for_others(config: Any) -> bool:
    cls = STAGES.class_of(config) if isinstance(config, Mapping) else None
    return cls is not None and cls.expand is not Stage.expand
