"""Strategy: subclasses change the defaults of an inherited constructor."""

from __future__ import annotations

import inspect

import pytest
import torch
from torch import nn

import easypruner
from easypruner import Context, MaskSource
from easypruner.graph import ChannelGraph
from easypruner.strategies.strategy import Strategy


class Base(Strategy):
    def __init__(self, first: int, second: int = 2, third: str = 'c') -> None:
        self.values = first, second, third


class Changed(Base, third='changed', first=1):
    pass


class Again(Changed, third='again'):
    pass


class Own(Changed):
    def __init__(self, second: int) -> None:
        super().__init__(5, second)


def test_class_keywords_are_the_new_defaults() -> None:
    assert Changed().values == (1, 2, 'changed')
    assert Changed(7, 8, 'x').values == Changed(third='x', second=8, first=7).values == (7, 8, 'x')
    assert Base(1).values == (1, 2, 'c')


def test_a_subclass_inherits_and_changes_them_again() -> None:
    assert Again().values == (1, 2, 'again')
    assert Own(3).values == (5, 3, 'changed')


def test_the_signature_shows_them() -> None:
    parameters = inspect.signature(Changed).parameters
    assert list(parameters) == ['first', 'second', 'third']
    assert [p.default for p in parameters.values()] == [1, 2, 'changed']
    with pytest.raises(TypeError, match='fourth'):
        Changed(fourth=4)  # type: ignore[call-arg]


def test_an_unknown_argument_is_refused() -> None:
    with pytest.raises(TypeError, match=r"Base.__init__ does not have the arguments \['fourth'\]"):

        class Wrong(Base, fourth=4):
            pass


def test_a_source_changes_them_and_its_selection_is_checked() -> None:
    class Source(MaskSource, reduction='max'):
        def select(self, graph: ChannelGraph, context: Context) -> object:  # type: ignore[override]
            return {}

    assert Source().reduction == 'max' and MaskSource().reduction == 'mean'
    with pytest.raises(Exception, match=r'easypruner\.Masks'):
        Source().select(easypruner.trace(nn.Linear(2, 2), torch.ones(1, 2)), Context())
