"""The results of a mask source are checked, before a run if possible, and faults name it."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import easypruner
from easypruner import Budget, Context, Masks, MaskSource
from easypruner.base.randomness import seed_everything
from easypruner.errors import ConfigError, EasyPrunerError, PluginError
from easypruner.graph import ChannelGraph
from easypruner.testing import example_budget, example_inputs, network
from easypruner.testing.networks import Plain
from tests.helpers.plugin_files import write_plugin
from tests.helpers.tiny import prune, tiny_config, write_config

Scoring = Callable[[int], Any]


class Scored(MaskSource):
    """Returns what a function makes of each group's size, for the first group only or for all."""

    def __init__(self, scoring: Scoring, budget: Budget | None = None) -> None:
        super().__init__(budget or example_budget())
        self.scoring = scoring

    def score(self, graph: ChannelGraph, context: Context) -> Any:
        return {name: self.scoring(group.size) for name, group in graph.groups.items()}


class Searched(MaskSource):
    """Returns whatever it is given."""

    def __init__(self, masks: Any) -> None:
        super().__init__()
        self.masks = masks

    def select(self, graph: ChannelGraph, context: Context) -> Any:
        return self.masks


class Searcher(Searched):
    """Returns the result of another source."""

    def select(self, graph: ChannelGraph, context: Context) -> Any:
        return super().select(graph, context)


@pytest.fixture
def graph() -> ChannelGraph:
    return easypruner.trace(network('plain').make(), network('plain').inputs())


WRONG: dict[str, tuple[Scoring, str]] = {
    'none': (lambda n: None, r'returned None for group .* with torch\.as_tensor'),
    'numbers': (lambda n: [0.5] * n, r'returned a list \[a float, .* for group'),
    'array': (np.ones, r'a float\d+ ndarray of shape \(8,\) for .* with torch\.as_tensor'),
    'deep': (lambda n: torch.rand(1, 1, n), r'float32 tensor of shape \(1, 1, 8\)'),
    'scalar': (lambda n: torch.rand(()), r'float32 tensor of shape \(\) for'),
    'units': (lambda n: torch.rand(n + 1), r"shape \(9,\) for group '.*' of 8 units; expected"),
    'layers': (lambda n: torch.rand(n, 2), r'shape \(8, 2\) .* of shape \(8,\) or \(layers, 8\)$'),
    'empty': (lambda n: torch.rand(0, n), r'shape \(0, 8\)'),
    'complex': (lambda n: torch.rand(n) * 1j, r'complex64 .* real numbers'),
}


@pytest.mark.parametrize(('scoring', 'message'), WRONG.values(), ids=WRONG)
def test_scores_of_another_kind(scoring: Scoring, message: str, graph: ChannelGraph) -> None:
    with pytest.raises(PluginError, match=rf'^Scored\.score\(\) .*{message}'):
        Scored(scoring).select(graph, Context())
    with pytest.raises(PluginError, match=message):
        Scored(scoring).dry_run(graph, Context())
    with pytest.raises(PluginError, match=message):
        easypruner.slim(Plain(), example_inputs(), source=Scored(scoring))


def test_scores_that_are_not_a_dict(graph: ChannelGraph) -> None:
    class Listed(Scored):
        def score(self, graph: ChannelGraph, context: Context) -> Any:
            return list(super().score(graph, context).values())

    with pytest.raises(PluginError, match=r'Listed\.score\(\) returned a list \[.*; exp'):
        Listed(torch.ones).select(graph, Context())


def test_scores_of_an_unknown_group(graph: ChannelGraph) -> None:
    class Elsewhere(Scored):
        def score(self, graph: ChannelGraph, context: Context) -> Any:
            return {'body.0.O': torch.ones(8)}

    with pytest.raises(
        PluginError, match=r"Elsewhere\.score.* group 'body\.0\.O', .* mean 'body\.0\.0'\?"
    ):
        Elsewhere(torch.ones).select(graph, Context())


@pytest.mark.parametrize('dtype', [torch.int64, torch.uint8, torch.bool, torch.float16])
@pytest.mark.parametrize('layers', [None, 2])
def test_integers_and_bools_rank_like_floats(
    dtype: torch.dtype, layers: int | None, graph: ChannelGraph
) -> None:
    def scoring(size: int) -> Tensor:
        scores = torch.arange(size) > size // 2 if dtype == torch.bool else torch.arange(size)
        return scores if layers is None else scores.expand(layers, size)

    expected = Scored(lambda n: scoring(n).double()).select(graph, Context())
    assert Scored(lambda n: scoring(n).to(dtype)).select(graph, Context()) == expected


@pytest.mark.parametrize('cls', [Searched, Searcher])
@pytest.mark.parametrize(
    ('masks', 'actual'), [({'0.0': torch.ones(8).bool()}, r'a dict \{.*\}'), (None, 'None')]
)
def test_masks_of_another_kind(
    cls: type[Searched], masks: Any, actual: str, graph: ChannelGraph
) -> None:
    with pytest.raises(
        PluginError, match=rf'{cls.__name__}\.select\(\) returned {actual}; expected'
    ):
        cls(masks).select(graph, Context())


def test_a_budget_that_returns_a_dict_is_reported_by_its_name(graph: ChannelGraph) -> None:
    class Plainly(Budget):
        asked = 1.0

        def __call__(
            self, scores: Mapping[str, Tensor], graph: ChannelGraph, context: Context
        ) -> Any:
            return {name: score > 0 for name, score in scores.items()}

        def delivered(self, masks: Masks, graph: ChannelGraph) -> float:
            return 1.0

    with pytest.raises(PluginError, match='the budget Plainly returned a dict'):
        Scored(torch.ones, Plainly()).select(graph, Context())


def test_a_failing_search_keeps_its_own_error(graph: ChannelGraph) -> None:
    masks = Masks({'0.0': torch.arange(8) > 2})
    assert Searcher(masks).select(graph, Context()) == masks
    assert Searcher.select.__name__ == 'select'


class TestDryRun:
    """A source is tried before a run starts, on untrained weights."""

    def test_a_source_that_needs_data_passes(self, graph: ChannelGraph) -> None:
        class Looking(Scored):
            def score(self, graph: ChannelGraph, context: Context) -> Any:
                next(context.some_batches(1, 'Looking'))
                return None

        class Careless(Scored):
            def score(self, graph: ChannelGraph, context: Context) -> Any:
                assert context.batches is not None
                return None

        for cls in (Looking, Careless):
            cls(torch.ones).dry_run(graph, Context())
            with pytest.raises((ConfigError, AssertionError)):
                cls(torch.ones).select(graph, Context())

    def test_weights_may_be_unsuitable_before_a_run(self, graph: ChannelGraph) -> None:
        Scored(lambda n: torch.full((n,), torch.nan)).dry_run(graph, Context())

        class Refusing(Scored):
            def score(self, graph: ChannelGraph, context: Context) -> Any:
                raise EasyPrunerError('all weights are equal')

        Refusing(torch.ones).dry_run(graph, Context())

    def test_it_leaves_no_trace(self, graph: ChannelGraph) -> None:
        class Marking(Scored):
            def score(self, graph: ChannelGraph, context: Context) -> Any:
                self.seen = True
                with torch.no_grad():
                    next(graph.model.parameters()).zero_()
                graph.model.train()
                seed_everything(7)
                return {name: torch.rand(group.size) for name, group in graph.groups.items()}

        def drawn() -> tuple[object, ...]:
            return random.random(), float(np.random.rand()), float(torch.rand(()))  # noqa: NPY002

        source = Marking(torch.ones)
        before = {name: tensor.clone() for name, tensor in graph.model.state_dict().items()}
        seed_everything(0)
        expected = drawn()
        seed_everything(0)
        source.dry_run(graph, Context())
        assert drawn() == expected
        assert not hasattr(source, 'seen')
        assert not graph.model.training
        for name, tensor in graph.model.state_dict().items():
            assert torch.equal(tensor, before[name])

    def test_a_source_that_cannot_be_copied_passes(self, graph: ChannelGraph) -> None:
        source = Scored(lambda n: None)
        source.file = (n for n in range(3))  # type: ignore[attr-defined]
        source.dry_run(graph, Context())


SOURCE = """
from easypruner import MaskSource, hookimpl

class Own(MaskSource):
    {method}

@hookimpl
def easypruner_components(): return [Own]
"""


@pytest.mark.parametrize(
    ('method', 'message'),
    [
        ('def scores(self, graph, context): return {}', 'defines neither score() nor select()'),
        (
            'def score(self, graph, context): return {n: None for n in graph.groups}',
            'stages[1]: Own.score() returned None for group',
        ),
        (
            'def __init__(self, budget=None): pass\n    score = print',
            "stages[1].source: Own has no 'budget', which the constructor of MaskSource sets",
        ),
    ],
)
def test_a_plan_reports_it(
    method: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_plugin(tmp_path / 'plugins', 'own.py', SOURCE.format(method=method))
    source = {'type': 'Own', 'budget': {'type': 'Macs', 'keep': 0.5}}
    stages = [{'type': 'Train', 'epochs': 1}, {'type': 'SelectMask', 'source': source}]
    config = write_config(tmp_path, tiny_config(stages=stages))
    plugins = str(tmp_path / 'plugins')
    assert prune(config, tmp_path / 'run', '--plan', '--plugins', plugins) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / 'run').exists()


def test_a_search_is_stopped_with_a_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    method = 'def select(self, graph, context): return {}'
    write_plugin(tmp_path / 'plugins', 'own.py', SOURCE.format(method=method))
    stages = [{'type': 'SelectMask', 'source': {'type': 'Own'}}]
    config = write_config(tmp_path, tiny_config(stages=stages))
    assert prune(config, tmp_path / 'run', '--plugins', str(tmp_path / 'plugins')) == 2
    assert 'Own.select() returned a dict {}; expected easypruner.Masks' in (capsys.readouterr().err)


def test_a_source_without_a_method_is_refused_as_an_object_too() -> None:
    class Nothing(MaskSource):
        def scored(self) -> None: ...

    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1))
    for source in (Nothing(), {'type': Nothing}):
        with pytest.raises(ConfigError, match=r'source: Nothing defines neither .*; is its scored'):
            easypruner.slim(model, torch.zeros(1, 3, 8, 8), macs=0.5, source=source)
