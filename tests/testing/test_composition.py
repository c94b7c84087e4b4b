"""Compositions: a component runs with every partner, and a failure names the combination."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from easypruner import Context, LayerHandler, Masks, MaskSource, Regularizer, Stage
from easypruner.errors import EasyPrunerError
from easypruner.graph import ChannelGraph
from easypruner.plugins.registry import BUDGETS, MASK_SOURCES, build
from easypruner.testing import check_source, compose, example_budget, network
from easypruner.testing.composition import pairs


class _Source(MaskSource):
    """Prefers units at the end of a group."""

    def score(self, graph: ChannelGraph, context: Context) -> dict[str, Tensor]:
        return {name: torch.arange(group.size).float() for name, group in graph.groups.items()}


class _Failing(_Source):
    def score(self, graph: ChannelGraph, context: Context) -> dict[str, Tensor]:
        raise RuntimeError('no scores today')


def test_a_composition_that_fails_is_named() -> None:
    with pytest.raises(AssertionError, match=r'_Failing-.*-1: RuntimeError: no scores today'):
        compose(_Failing)
    compose(_Source)


class _Named(_Source):
    """Passes unknown arguments to its base class."""

    def __init__(self, *, alpha: float = 1.0, **options: Any) -> None:
        super().__init__(**options)
        self.alpha = alpha


def test_a_source_may_pass_its_budget_on() -> None:
    assert _Named.takes_budget()
    check_source(_Named(budget=example_budget()), network('plain'))
    assert {pair.budget for pair in pairs(_Named)} == set(BUDGETS.classes.values())
    config = {'type': _Named, 'budget': {'type': 'Macs', 'keep': 0.5}, 'alpha': 2.0}
    assert build(MASK_SOURCES, config).needed_budget().asked == 0.5


@pytest.mark.parametrize(
    ('given', 'words'),
    [
        ('Own', r"got 'Own', expected a class; component\('Own', folder\) returns"),
        (_Source(), 'expected a class; its class is _Source'),
    ],
)
def test_a_value_that_is_not_a_class_is_not_composed(given: Any, words: str) -> None:
    with pytest.raises(EasyPrunerError, match=words):
        compose(given)


@pytest.mark.parametrize('other', [Stage, LayerHandler])
def test_a_class_without_partners_is_not_composed(other: type[Any]) -> None:
    with pytest.raises(EasyPrunerError, match='use check_stage or check_handler'):
        compose(other)


class _NoBudget(Regularizer):
    def penalty(self, graph: ChannelGraph, masks: Masks | None) -> Tensor:
        return self.strength * graph.parameter('head.weight').sum()

    @classmethod
    def example(cls, graph: ChannelGraph, folder: Path) -> Mapping[str, Any]:
        return {'strength': -1.0}


def test_bad_example_arguments_are_reported() -> None:
    with pytest.raises(AssertionError, match=r'strength=-1\.0'):
        compose(_NoBudget)
