"""build() makes components from config dicts, or reports all their mistakes at once."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from mmengine.config import ConfigDict
from mmengine.registry import DefaultScope

from easypruner import Budget, Masks, MaskSource, Regularizer, Stage
from easypruner.errors import ConfigError, EasyPrunerError, Mistakes
from easypruner.plugins.registry import (
    BUDGETS,
    MASK_SOURCES,
    REGISTRIES,
    REGULARIZERS,
    STAGES,
    ComponentRegistry,
    build,
    build_list,
)


class Half(Budget):
    """Takes a number that must be positive."""

    asked = 0.5

    def __init__(self, value: float, unit: str = 'units') -> None:
        if value <= 0:
            raise EasyPrunerError(f'value={value} must be above 0')
        self.value = value
        self.unit = unit

    def __call__(self, *args: Any) -> Masks:
        raise NotImplementedError

    def delivered(self, *args: Any) -> float:
        raise NotImplementedError


class ByName(MaskSource):
    """Has the arguments of every source."""

    def score(self, *args: Any) -> Any:
        raise NotImplementedError


class Combined(ByName):
    """Takes other sources."""

    def __init__(self, sources: list[MaskSource], weights: dict[str, float] | None = None) -> None:
        super().__init__()
        self.sources = sources
        self.weights = weights


class Open(ByName):
    """Takes anything."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.options = options


class Push(Regularizer):
    """Pushes nothing."""

    def penalty(self, *args: Any) -> Any:
        raise NotImplementedError


class Select(Stage):
    """Takes a source, a string whose name is that of a kind, and a number."""

    def __init__(self, source: MaskSource, regularizer: Any = None, stage: str = '') -> None:
        super().__init__()
        self.source = source
        self.regularizer = regularizer
        self.stage = stage

    def run(self, state: Any) -> Any:
        return state


@pytest.fixture(autouse=True)
def filled() -> Iterator[None]:
    before = [list(registry.classes.values()) for registry in REGISTRIES]
    contents: dict[ComponentRegistry, list[Any]] = {
        MASK_SOURCES: [ByName, Combined, Open],
        BUDGETS: [Half],
        STAGES: [Select],
    }
    for registry in REGISTRIES:
        registry.fill(contents.get(registry, []))
    yield
    for registry, classes in zip(REGISTRIES, before, strict=True):
        registry.fill(classes)


HALF = {'type': 'Half', 'value': 0.5}


def mistakes(registry: ComponentRegistry, config: Any, path: str = '') -> tuple[str, ...]:
    with pytest.raises(ConfigError) as raised:
        build(registry, config, path=path)
    return raised.value.mistakes


class TestBuilding:
    def test_arguments_reach_the_constructor(self) -> None:
        budget = build(BUDGETS, {'type': 'Half', 'value': 2, 'unit': 'MACs'})
        assert (type(budget), budget.value, budget.unit) == (Half, 2, 'MACs')

    def test_the_config_is_left_as_it_was(self) -> None:
        config = {'type': 'ByName', 'budget': dict(HALF)}
        build(MASK_SOURCES, config)
        assert config == {'type': 'ByName', 'budget': HALF}

    def test_the_class_itself_may_be_the_type(self) -> None:
        assert build(BUDGETS, {'type': Half, 'value': 1}).value == 1

    def test_an_object_that_is_built_already_is_returned(self) -> None:
        budget = Half(1)
        assert build(BUDGETS, budget) is budget
        assert build(MASK_SOURCES, {'type': 'ByName', 'budget': budget}).budget is budget

    def test_defaults_fill_missing_arguments(self) -> None:
        assert build(BUDGETS, HALF, unit='MACs').unit == 'MACs'
        assert build(BUDGETS, {**HALF, 'unit': 'params'}, unit='MACs').unit == 'params'

    def test_config_dicts_of_mmengine(self) -> None:
        stage = build(STAGES, ConfigDict(type='Select', source={'type': 'ByName', 'budget': HALF}))
        assert stage.source.budget.value == 0.5

    def test_a_default_scope_changes_nothing(self) -> None:
        with warnings.catch_warnings(), DefaultScope.overwrite_default_scope('mmpretrain'):
            warnings.simplefilter('error')
            assert type(build(BUDGETS, HALF)) is Half


class TestNesting:
    def test_components_within_components(self) -> None:
        stage = build(STAGES, {'type': 'Select', 'source': {'type': 'ByName', 'budget': HALF}})
        assert type(stage.source) is ByName
        assert type(stage.source.budget) is Half

    def test_lists_under_a_plural(self) -> None:
        sources = [{'type': 'ByName', 'budget': HALF}, {'type': 'Open', 'anything': {'type': 'x'}}]
        first, second = build(MASK_SOURCES, {'type': 'Combined', 'sources': sources}).sources
        assert first.budget.value == 0.5
        assert second.options == {'anything': {'type': 'x'}}

    def test_other_dicts_and_texts_are_left_alone(self) -> None:
        weights = {'type': 3.0}
        source = build(MASK_SOURCES, {'type': 'Combined', 'sources': [], 'weights': weights})
        assert source.weights == weights
        stage = build(STAGES, {'type': 'Select', 'source': {'type': 'ByName'}, 'stage': 'first'})
        assert stage.stage == 'first'


def without_advice(message: str) -> str:
    """Leave out of a message about an unknown name how to load plugins."""
    return message.partition('; a plugin of your own has to be loaded: --plugins DIR')[0]


class TestMistakes:
    @pytest.mark.parametrize(
        ('config', 'message'),
        [
            ({'type': 'Hlaf', 'value': 1}, "unknown budget 'Hlaf'; did you mean 'Half'?"),
            ({'type': 'half', 'value': 1}, "unknown budget 'half'; did you mean 'Half'?"),
            ({'type': 'ByName'}, "unknown budget 'ByName'; this is a mask source"),
            ({'type': 3}, 'unknown budget 3; known names: Half'),
            ({'value': 1}, "expected a budget, dict(type='...'), got {'value': 1}"),
            (None, "expected a budget, dict(type='...'), got None"),
            ({'type': 'Half'}, "the argument 'value' of Half is missing"),
            ({**HALF, 'units': 'x'}, "Half has no argument 'units'; did you mean 'unit'?"),
            ({'type': 'Half', 'value': -1}, 'value=-1 must be above 0'),
        ],
    )
    def test_each_is_reported(self, config: Any, message: str) -> None:
        (found,) = mistakes(BUDGETS, config)
        assert without_advice(found) == message
        assert mistakes(BUDGETS, config, 'here') == (f'here: {found}',)

    def test_an_error_in_a_constructor(self) -> None:
        (message,) = mistakes(BUDGETS, {'type': 'Half', 'value': 'much'})
        assert message == "value='much' of Half; expected a number"

    def test_a_bare_name_where_a_component_belongs(self) -> None:
        assert mistakes(MASK_SOURCES, {'type': 'ByName', 'budget': 'Half'}) == (
            "budget: got the name 'Half'; expected a budget, dict(type='Half')",
        )

    def test_all_are_raised_together_with_their_paths(self) -> None:
        stages = [
            {'type': 'Select', 'source': {'type': 'ByName', 'budget': {'type': 'Half'}}},
            {'type': 'Select'},
            {
                'type': 'Select',
                'source': {'type': 'Combined', 'sources': [{'type': 'ByNam'}]},
                'x': 1,
            },
        ]
        with pytest.raises(ConfigError) as raised:
            build_list(STAGES, stages, path='stages')
        assert tuple(map(without_advice, raised.value.mistakes)) == (
            "stages[0].source.budget: the argument 'value' of Half is missing",
            "stages[1]: the argument 'source' of Select is missing",
            "stages[2]: Select has no argument 'x'; known names: regularizer, source, stage",
            "stages[2].source.sources[0]: unknown mask source 'ByNam'; did you mean 'ByName'?",
        )
        assert str(raised.value).startswith('4 mistakes:\n  - stages[0].source.budget: the arg')

    def test_a_list_must_be_one(self) -> None:
        with pytest.raises(ConfigError, match='stages: expected a list of stages'):
            build_list(STAGES, {'type': 'Select'}, path='stages')

    @pytest.mark.parametrize(
        ('registry', 'contract', 'missing'),
        [
            (MASK_SOURCES, ByName, 'budget'),
            (STAGES, Select, 'name'),
            (REGULARIZERS, Push, 'strength'),
        ],
    )
    def test_a_constructor_that_leaves_the_contract_s_out(
        self, registry: ComponentRegistry, contract: type[Any], missing: str
    ) -> None:
        class Forgetful(contract):
            def __init__(self) -> None:
                pass

        for config in ({'type': Forgetful}, Forgetful()):
            (message,) = mistakes(registry, config, 'here')
            assert message == (
                f'here: Forgetful has no {missing!r}, which the constructor of '
                f'{registry.contract.__name__} sets; call super().__init__() in '
                'Forgetful.__init__()'
            )

    def test_a_class_that_is_not_finished(self) -> None:
        class Nothing(Regularizer):
            def penatly(self) -> None: ...

        message = (
            'Nothing defines neither penalty(), add_gradient() nor forward_penalty(); '
            'is its penatly meant to be'
        )
        for config in ({'type': Nothing, 'strength': 1.0}, Nothing(1.0)):
            assert mistakes(REGULARIZERS, config) == (f'{message} penalty?',)

    def test_other_exceptions_pass(self) -> None:
        class Faulty(Budget):
            asked = 1.0
            __call__ = delivered = Half.delivered

            def __init__(self) -> None:
                raise OSError('disk on fire')

        BUDGETS.fill([Faulty])
        with pytest.raises(OSError, match='disk on fire'):
            build(BUDGETS, {'type': 'Faulty'})


class TestRegistry:
    def test_filling_replaces(self) -> None:
        BUDGETS.fill([])
        assert not BUDGETS.classes

    def test_parameters_are_unique(self) -> None:
        parameters = [registry.parameter for registry in REGISTRIES]
        assert len(set(parameters)) == len(parameters)

    def test_regularizers_have_one(self) -> None:
        assert Regularizer in {registry.contract for registry in REGISTRIES}


def test_mistakes_are_collected_from_many_checks() -> None:
    found = Mistakes()
    with found.collect('data'):
        raise EasyPrunerError('no folder')
    with found.collect():
        build(BUDGETS, {'type': 'Half', 'value': 0, 'unti': 1}, path='b')
    with found.collect():
        pass
    with pytest.raises(ConfigError) as raised:
        found.raise_all()
    assert raised.value.mistakes == (
        'data: no folder',
        "b: Half has no argument 'unti'; did you mean 'unit'?",
    )


def test_without_mistakes_nothing_is_raised() -> None:
    Mistakes().raise_all()
