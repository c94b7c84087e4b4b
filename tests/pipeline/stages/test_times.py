"""The times in the report of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from easypruner.errors import ConfigError
from easypruner.pipeline.stages import times
from easypruner.pipeline.stages.report import Report
from easypruner.plugins import load_plugins
from easypruner.plugins.registry import RUNTIMES, STAGES, build
from easypruner.report.times import RunTimes
from easypruner.runtimes import Exported, Runtime, Session
from tests.helpers.tiny import prune, summary, tiny_config, write_config

INPUTS = torch.rand(1, 8)
BEFORE, AFTER = nn.Linear(8, 64), nn.Linear(8, 8)


class Files(Runtime):
    """Has files, so that it is not measured by default for a small network."""

    reported = True
    fails = False

    def export(self, network: Any, inputs: Any, folder: Path, name: str) -> Exported:
        if self.fails:
            raise RuntimeError('it has an operation of another kind')
        self.network = network
        return Exported(folder, ())

    def load(self, path: Path) -> Session:
        return Session(lambda inputs: lambda: (self.network(inputs),))


class Refusing(Files):
    fails = True


@pytest.fixture
def plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    load_plugins()
    own = {name: cls for name, cls in RUNTIMES.classes.items() if name == 'TorchEager'}
    monkeypatch.setattr(RUNTIMES, '_classes', {'Files': Files, **own})


@pytest.mark.usefixtures('plugins')
class TestMeasureTimes:
    def test_by_default_nothing_is_exported_for_a_small_network(self) -> None:
        found = times.measure_times(BEFORE, AFTER, INPUTS, None)
        assert [time.runtime for time in found.times] == ['TorchEager']
        assert any("Report(runtimes=['Files'])" in fact for fact in found.facts)

    def test_by_default_a_larger_one_is(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(times, '_SMALL', 0.0)
        found = times.measure_times(BEFORE, AFTER, INPUTS, None)
        assert [time.runtime for time in found.times] == ['TorchEager', 'Files']

    def test_a_network_that_cannot_be_exported_is_a_fact(self) -> None:
        found = times.measure_times(BEFORE, AFTER, INPUTS, [Refusing(), Files()])
        assert [time.runtime for time in found.times] == ['Files']
        assert any('Refusing: not measured' in fact for fact in found.facts)
        assert any('of another kind' in fact for fact in found.facts)

    def test_a_stage_takes_names(self) -> None:
        stage = build(STAGES, dict(type='Report', runtimes=['TorchEager', dict(type='Files')]))
        assert isinstance(stage, Report) and stage.runtimes is not None
        assert [runtime.name for runtime in stage.runtimes] == ['TorchEager', 'Files']
        with pytest.raises(ConfigError, match=r"runtimes\[0\]: unknown runtime 'TorchEagr'"):
            build(STAGES, dict(type='Report', runtimes=['TorchEagr']))


@pytest.mark.in_ci
def test_a_run_has_times_unless_it_asks_for_none(tmp_path: Path) -> None:
    assert prune(write_config(tmp_path), tmp_path / 'run') == 0
    found = RunTimes.load(tmp_path / 'run')
    assert [time.runtime for time in found.times] == ['TorchEager']
    assert found.times[0].before > 0 and found.times[0].after > 0
    assert 'times' not in summary(tmp_path / 'run')
    stages = [dict(type='Evaluate'), dict(type='Report', runtimes=[])]
    config = write_config(tmp_path, tiny_config(stages=stages), 'none')
    assert prune(config, tmp_path / 'none') == 0
    assert RunTimes.load(tmp_path / 'none') == RunTimes()
