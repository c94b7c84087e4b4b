"""Expansion: stages of a config that are replaced by others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest

from easypruner.errors import ConfigError, Mistakes
from easypruner.pipeline.preflight import expand
from easypruner.plugins.registry import STAGES
from easypruner.strategies import Stage
from easypruner.strategies.stages.state import PruningState


class Twice(Stage):
    """A stage that is replaced by two copies of another stage."""

    def __init__(self, of: Mapping[str, Any] | None = None, nothing: bool = False) -> None:
        super().__init__()
        if of is None and not nothing:
            raise ConfigError('twice what?')
        self.of = of

    def expand(self) -> Sequence[Mapping[str, Any]] | None:
        return None if self.of is None else [self.of, self.of]

    def run(self, state: PruningState) -> PruningState:
        raise AssertionError


class Once(Stage):
    """A stage that is replaced by itself."""

    def run(self, state: PruningState) -> PruningState:
        return state


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    before = dict(STAGES.classes)
    STAGES.fill([Twice, Once])
    yield
    STAGES.fill(before.values())


ONCE = dict(type='Once')


def expanded(stages: Any) -> list[Any]:
    """Return the configs of the stages of a run, or raise their mistakes."""
    mistakes = Mistakes()
    found = expand(stages, mistakes)
    mistakes.raise_all()
    return [planned.config for planned in found]


@pytest.mark.parametrize('stages', [[], [ONCE], [ONCE, dict(type='Twice', nothing=True)]])
def test_other_stages_do_not_change(stages: list[Any]) -> None:
    assert expanded(stages) == stages


def test_each_stage_is_built_once() -> None:
    configs = [ONCE, dict(type='Twice', of=ONCE)]
    built: list[Stage] = []

    class Counted(Once):
        def __init__(self) -> None:
            super().__init__()
            built.append(self)

    STAGES.fill([Twice, type('Once', (Counted,), {})])
    stages = [planned.stage for planned in expand(configs, Mistakes())]
    assert stages == built
    assert len(built) == 3


@pytest.mark.parametrize('stages', [None, 'Train', dict(type='Twice')])
def test_a_value_that_is_not_a_list_is_a_mistake(stages: Any) -> None:
    with pytest.raises(ConfigError, match='stages: expected a list of stages, got'):
        expanded(stages)


def test_order_is_kept() -> None:
    other = dict(type='Once', name='other')
    assert expanded([other, dict(type='Twice', of=ONCE), other]) == [other, ONCE, ONCE, other]


def test_a_class_in_place_of_its_name() -> None:
    assert expanded([dict(type=Twice, of=ONCE)]) == [ONCE, ONCE]


def test_expansion_is_recursive() -> None:
    inner = dict(type='Twice', of=ONCE)
    assert expanded([dict(type='Twice', of=inner)]) == [ONCE] * 4


def test_all_mistakes_are_reported_each_with_its_path() -> None:
    stages = [dict(type='Twice'), ONCE, dict(type='Twice', off=ONCE)]
    with pytest.raises(ConfigError) as error:
        expanded(stages)
    assert [m.partition(':')[0] for m in error.value.mistakes] == ['stages[0]', 'stages[2]']
    assert "'of'" in error.value.mistakes[1]


def test_valid_stages_are_expanded_beside_invalid_ones() -> None:
    mistakes = Mistakes()
    one = dict(type='Once', name='one')
    stages = expand([dict(type='Twice'), dict(type='Twice', of=one)], mistakes)
    assert [planned.stage.name for planned in stages] == ['one', 'one']
    assert [planned.location for planned in stages] == ['stages[1] (one)'] * 2
    assert len(mistakes.found) == 1 and mistakes.found[0].startswith('stages[0]: ')
