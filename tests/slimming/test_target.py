"""slim() with a target: widths on the grid of a runtime, and what the summary says about it."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from easypruner_plugins.latency import Latency
from easypruner_plugins.torch_runtimes import TorchEager

from easypruner import slim
from easypruner.errors import BudgetError
from easypruner.runtimes.timing import Reading, Timed
from easypruner.slimming import target_times
from easypruner.testing import example_inputs, randomized_network
from easypruner.testing.networks import Plain
from tests.helpers.clocked import Clocked, use_clock

GRID = {'type': 'TorchEager', 'grid': 4}


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(target_times, '_SECONDS', 0.0)
    monkeypatch.setattr(target_times, '_REPEATS', 2)


def slimmed_for(target: Any, **options: Any) -> Any:
    return slim(randomized_network(Plain), example_inputs(), macs=0.5, target=target, **options)


class TestTarget:
    def test_widths_are_on_the_grid_and_the_budget_is_met(self) -> None:
        slimmed = slimmed_for(GRID)
        widths = [slimmed.model.body[number][0].out_channels for number in (0, 1)]
        assert all(width % 4 == 0 for width in widths) and widths != [8, 12]
        assert slimmed.summary.after.macs <= 0.5 * slimmed.summary.before.macs

    def test_the_summary_has_grid_scores_and_times(self) -> None:
        slimmed = slimmed_for(GRID)
        text, target = str(slimmed), slimmed.summary.target
        assert 'target TorchEager: widths are multiples of 4 (' in text
        assert 'TorchEager, 1 thread: ' in text and 'ms before' in text
        assert 'widths of any size under the same budget would take' in text
        kept, free = target.kept_scores
        assert 0 < kept < 1 and 0 < free < 1
        assert target.times.machine['torch'] == version('torch')
        assert target.times.machine['processor']
        assert not target.off_grid

    def test_widths_of_ones_own_that_are_off_the_grid_are_a_warning(self) -> None:
        text = str(slimmed_for(GRID, limits={'round_to': 3}))
        assert 'WARNING: ' in text and 'layers off the grid: ' in text

    def test_a_runtime_that_is_not_installed_still_gives_its_grid(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(TorchEager, 'missing', classmethod(lambda cls: ('torch',)))
        slimmed = slimmed_for({'type': 'TorchEager'}, limits={'round_to': 2})
        assert slimmed.summary.target.times is None
        assert 'TorchEager is not installed here, so its time is not known' in str(slimmed)
        assert 'as documented' in str(slimmed)

    def test_a_slower_network_is_a_warning(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def times(*arguments: Any) -> tuple[Timed, ...]:
            return tuple(Timed(Reading(r, 0, 9), Reading(r, 0, 9)) for r in (1.0, 1.2, 1.4))

        monkeypatch.setattr(target_times, '_times', times)
        text = str(slimmed_for(GRID))
        assert 'WARNING: the pruned network is slower in TorchEager than the unpruned one' in text
        assert '1.200 of the time' in text

    def test_a_budget_that_measures_searches_once(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        calls = []
        use_clock(monkeypatch, tmp_path)
        search = Latency.__call__
        monkeypatch.setattr(Latency, '__call__', lambda *a: calls.append(1) or search(*a))
        budget = {'type': 'Latency', 'keep': 0.7}
        limits = {'round_to': 1}
        slimmed = slim(
            randomized_network(Plain), example_inputs(), budget=budget, target=Clocked(),
            limits=limits,
        )  # fmt: skip
        assert calls == [1] and 'the same budget would' not in str(slimmed)
        assert 'Clocked, 1 thread: ' in str(slimmed)

    def test_a_grid_too_coarse_for_the_network_says_what_to_do(self) -> None:
        with pytest.raises(BudgetError, match='a smaller round_to, or no target, allows more'):
            slimmed_for({'type': 'TorchEager', 'grid': 16})

    def test_no_target_says_nothing_about_one(self) -> None:
        slimmed = slimmed_for(None)
        assert slimmed.summary.target is None and 'target' not in str(slimmed)

    def test_a_summary_with_a_target_is_json(self) -> None:
        content = json.loads(json.dumps(slimmed_for(GRID).summary.to_dict()))
        assert content['target']['runtime'] == 'TorchEager'
