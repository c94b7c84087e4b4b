"""The probe: grids from times of layers, and the cache of what was measured."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from easypruner_plugins.torch_runtimes import TorchEager
from hypothesis import given
from hypothesis import strategies as st

from easypruner.base.cache import cache_folder
from easypruner.runtimes import Runtime, probe
from easypruner.runtimes.probe import LAYERS, WidthProbe


def probe_of(law: Callable[[int], float]) -> WidthProbe:
    """Return what the probe finds if all layers take the time of a law."""
    return WidthProbe({kind: {w: law(w) for w in each.widths} for kind, each in LAYERS.items()}, {})


class TestGrids:
    @given(st.sampled_from([4, 8, 16]), st.floats(1, 2.5), st.sampled_from(sorted(LAYERS)))
    def test_channels_that_are_padded_to_blocks_give_the_grid_of_the_blocks(
        self, block: int, power: float, kind: str
    ) -> None:
        assert probe_of(lambda w: (-(-w // block) * block) ** power).grid(kind) == block

    @given(st.floats(0.5, 2.5), st.floats(1e-6, 1.0))
    def test_a_time_without_steps_gives_no_grid(self, power: float, scale: float) -> None:
        assert {probe_of(lambda w: scale * w**power).grid(kind) for kind in LAYERS} == {1}

    @pytest.mark.parametrize('fast', [4, 8, 16])
    def test_a_slow_path_for_other_widths_gives_the_grid_of_the_fast_one(self, fast: int) -> None:
        found = probe_of(lambda w: w * (1 if w % fast == 0 else 2))
        assert {found.grid(kind) for kind in LAYERS} == {fast}

    def test_the_factor_of_a_width_is_that_of_its_grid(self) -> None:
        found = probe_of(lambda w: w * (1 if w % 16 == 0 else 3))
        assert found.factor('dense', 1001) == pytest.approx(3, rel=0.02)
        assert found.factor('dense', 1024) == pytest.approx(1, rel=0.02)


class Counting(TorchEager):
    """Counts how often layers are measured."""

    measured = 0

    def layer_sessions(self, layers):  # type: ignore[no-untyped-def]
        Counting.measured += 1
        return super().layer_sessions(layers)


class TestCache:
    @pytest.fixture(autouse=True)
    def own_cache(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv('EASYPRUNER_CACHE', str(tmp_path))
        monkeypatch.setattr(probe, '_REPEATS', 1)
        monkeypatch.setattr(probe, '_WARMUP', 0)
        monkeypatch.setattr(Counting, 'measured', 0)
        few = {'linear': LAYERS['linear']}
        monkeypatch.setattr(probe, 'LAYERS', few)

    def entry(self) -> Path:
        (found,) = cache_folder().rglob('*.json')
        return found

    def test_a_machine_is_measured_once(self) -> None:
        first, second = Counting().probe, Counting().probe
        assert first is not None and second is not None
        assert first.seconds == second.seconds and Counting.measured == 1

    def test_other_threads_are_measured_again(self) -> None:
        assert Counting().probe and Counting(threads=2).probe
        assert Counting.measured == 2

    @pytest.mark.parametrize('content', ['', '[]', '{"value": {}}'])
    def test_a_damaged_entry_is_measured_again(self, content: str) -> None:
        assert Counting().probe
        self.entry().write_text(content)
        assert Counting().probe and Counting().probe
        assert Counting.measured == 2

    def test_an_edited_time_is_measured_again(self) -> None:
        assert Counting().probe
        stored = json.loads(self.entry().read_text())
        stored['value']['linear']['64'] *= 3
        self.entry().write_text(json.dumps(stored))
        assert Counting().probe and Counting.measured == 2

    def test_a_cache_that_cannot_be_written_costs_only_time(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / 'file').write_text('')
        monkeypatch.setenv('EASYPRUNER_CACHE', str(tmp_path / 'file'))
        assert Counting().probe

    def test_a_grid_that_is_given_needs_no_measurement(self) -> None:
        runtimes: list[Runtime] = [Counting(grid=8), Counting(grid='documented')]
        assert [runtime.grid('dense') for runtime in runtimes] == [8, Counting.widths['dense']]
        assert Counting.measured == 0
