"""Every source with every budget and every regularizer, in one cut and in several."""

from __future__ import annotations

import pytest

from easypruner.plugins import load_plugins
from easypruner.plugins.registry import BUDGETS, MASK_SOURCES, REGULARIZERS
from easypruner.testing import Combination, combinations, run

# By default, one in this number is run. It is prime, so that all pairs occur.
_SAMPLE = 23

load_plugins()
ALL = list(combinations())


def test_every_class_takes_part() -> None:
    load_plugins()  # other tests load more
    # Other tests load plugins of their own.
    load_plugins()
    for registry, attribute in ((MASK_SOURCES, 'source'), (BUDGETS, 'budget')):
        assert set(registry.classes.values()) <= {getattr(c, attribute) for c in ALL}
    assert set(REGULARIZERS.classes.values()) == {c.regularizer for c in ALL}
    ranking = len({c.source for c in ALL if c.budget is not None})
    budgets, regularizers = len(BUDGETS.classes), len(REGULARIZERS.classes)
    given = len(MASK_SOURCES.classes) - ranking
    assert len(ALL) == 2 * ranking * budgets * regularizers + given * regularizers


@pytest.mark.parametrize('combination', ALL[::_SAMPLE], ids=str)
def test_some_work_together(combination: Combination) -> None:
    run(combination)


@pytest.mark.slow
@pytest.mark.parametrize('combination', ALL, ids=str)
def test_all_work_together(combination: Combination) -> None:
    run(combination)
