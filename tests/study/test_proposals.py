"""Proposals of Optuna: in the ranges, repeatable, and better than what a grid of few values has."""

from __future__ import annotations

import importlib.util
import math
from typing import Any

import pytest

from easypruner.errors import ConfigError
from easypruner.study import between, tune
from easypruner.study.proposals import SAMPLERS, Proposals

pytest.importorskip('optuna', reason="optuna is not installed: pip install 'easypruner[optuna]'")


def accuracy(values: dict[str, Any]) -> float:
    """Return the result of a trial: the best strength is 0.03, and 'b' is the best kind."""
    distance = abs(values['strength'] - 0.03) + abs(values['epochs'] - 4)
    return 100.0 - distance - (values['kind'] != ['b'])


def search(sampler: str = 'tpe', trials: int = 12, **arguments: Any) -> Any:
    spaces = {
        'strength': between(1e-4, 1.0, log=True),
        'epochs': between(1, 9, step=2),
        'kind': [['a'], ['b'], None],
        'share': between(0, 1.0, step=0.25),
    }
    return tune(spaces, trials=trials, sampler=sampler, **arguments).search


def trials_of(found: Any, known: int = 100) -> list[dict[str, Any]]:
    """Return the values of all trials; results after the first ``known`` ones are asked for."""
    proposals, values = Proposals(found), []
    while (asked := proposals.ask()) is not None and len(values) < known:
        values.append(asked)
        proposals.tell(accuracy(asked))
    return values


@pytest.mark.parametrize(
    'sampler', [pytest.param(s, marks=[pytest.mark.slow] if s == 'gp' else []) for s in SAMPLERS]
)
def test_the_same_results_give_the_same_proposals(sampler: str) -> None:
    found = search(sampler, trials=7)
    values = trials_of(found)
    assert len(values) == 7
    # Stopped after some trials, and repeated from the beginning.
    assert trials_of(found, known=4) == values[:4] and trials_of(found) == values
    assert trials_of(search(sampler, trials=7, seed=1)) != values
    for entry in values:
        assert 1e-4 <= entry['strength'] <= 1 and entry['strength'] == float(
            f'{entry["strength"]:.6g}'
        )
        assert entry['epochs'] in (1, 3, 5, 7, 9) and type(entry['epochs']) is int
        assert entry['share'] in (0, 0.25, 0.5, 0.75, 1) and type(entry['share']) is float
        assert entry['kind'] in (['a'], ['b'], None)


def test_proposals_improve_on_random_ones() -> None:
    def misses(sampler: str, seed: int) -> float:
        """Return how far the best of 20 proposals is from the best value, in decades."""
        space = between(1e-6, 1e3, log=True)
        proposals = Proposals(tune('x', space, trials=20, sampler=sampler, seed=seed).search)
        distances = []
        while (asked := proposals.ask()) is not None:
            distances.append(abs(math.log10(asked['x']) + 1.3))
            proposals.tell(90 - distances[-1])
        return min(distances)

    found = {name: sum(misses(name, seed) for seed in range(8)) for name in ('tpe', 'random')}
    assert found['tpe'] < 0.7 * found['random'], found


@pytest.mark.parametrize(
    ('call', 'words'),
    [
        (lambda: tune('a', [1, 2], trials=0), 'trials=0 of tune; expected a whole number'),
        (lambda: tune('a', [1, 2], trials=3, sampler='tpa'), "did you mean 'tpe'"),
        (lambda: tune('a', [1, 2], trials=3, seed=-1), 'seed=-1 of tune'),
        (
            lambda: tune('a', between(1, 2)),
            r'between\(1, 2\); expected a list of values',
        ),
        (lambda: tune('a', 3, trials=3), r"tune\('a'\) is 3; expected"),
        (lambda: between(2, 1), 'high=1 of between; expected a number above 2'),
        (lambda: between(0, 1, log=True), 'low=0 of between; expected a number above 0'),
        (lambda: between('a', 1), "low='a' of between"),
        (lambda: between(1, 9, step=0.5), 'step=0.5 of between; expected a whole number'),
        (lambda: between(1, 9, step=9), 'step=9 of between'),
        (lambda: between(1.0, 9, log=True, step=2), 'step=2 of between; expected none'),
        (lambda: between(1, 9, log='yes'), "log='yes' of between; expected True or False"),
    ],
)
def test_arguments_that_do_not_fit(call: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        call()


def test_without_optuna_the_line_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(ConfigError, match=r'needs Optuna: pip install "easypruner\[optuna\]"'):
        tune('a', between(1, 2), trials=3)
    assert tune('a', [1, 2]).trials == 2
