"""Expansion: stages of a config that stand for others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest

from easypruner.errors import ConfigError
from easypruner.pipeline.expansion import expand, expanded
from easypruner.plugins.registry import STAGES
from easypruner.strategies import Stage
from easypruner.strategies.stages.state import PruningState


class Twice(Stage):
    """Stands for two copies of a stage."""

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
    """Stands for itself."""

    def run(self, state: PruningState) -> PruningState:
        return state


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    before = dict(STAGES.classes)
    STAGES.fill([Twice, Once])
    yield
    STAGES.fill(before.values())


ONCE = dict(type='Once')


@pytest.mark.parametrize('stages', [[], [ONCE], [ONCE, dict(type='Unknown'), 3, None]])
def test_other_stages_are_left_alone(stages: list[Any]) -> None:
    assert expanded(stages) == stages


@pytest.mark.parametrize('stages', [None, 'Train', dict(type='Twice')])
def test_what_is_no_list_is_left_alone(stages: Any) -> None:
    assert expand(stages).stages is stages


def test_order_is_kept() -> None:
    other = dict(type='Once', name='other')
    assert expanded([other, dict(type='Twice', of=ONCE), other]) == [other, ONCE, ONCE, other]


def test_a_class_in_place_of_its_name() -> None:
    assert expanded([dict(type=Twice, of=ONCE)]) == [ONCE, ONCE]


def test_what_stands_for_what_stands_for_others() -> None:
    inner = dict(type='Twice', of=ONCE)
    assert expanded([dict(type='Twice', of=inner)]) == [ONCE] * 4


def test_all_mistakes_are_told_each_with_its_place() -> None:
    stages = [dict(type='Twice'), ONCE, dict(type='Twice', off=ONCE)]
    with pytest.raises(ConfigError) as error:
        expanded(stages)
    assert [m.partition(':')[0] for m in error.value.mistakes] == ['stages[0]', 'stages[2]']
    assert "'of'" in error.value.mistakes[1]


def test_what_is_right_is_expanded_beside_what_is_wrong() -> None:
    found = expand([dict(type='Twice'), dict(type='Twice', of=dict(type='Once', name='one'))])
    assert [stage['name'] for stage in found.stages] == ['one', 'one']
    assert found.places == ('stages[1] (one)',) * 2
    assert len(found.mistakes) == 1 and found.mistakes[0].startswith('stages[0]: ')
