"""Runs with a target: their plan, the widths of their cut, and mistakes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from easypruner import Masks
from tests.helpers.tiny import prune, summary, tiny_config, write_config

GRID = {'type': 'TorchEager', 'grid': 4}


def short(graph: dict[str, Any], source: str = 'L1Norm') -> dict[str, Any]:
    """Return a config that only selects masks and cuts."""
    budget = dict(type='Macs', keep=0.6)
    stages = [
        dict(type='SelectMask', source=dict(type=source, budget=budget)),
        dict(type='Prune'),
        dict(type='Report'),
    ]
    return tiny_config(stages=stages, graph=graph)


class TestTarget:
    def test_the_plan_names_the_grid(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        config = write_config(tmp_path, short(dict(target=GRID)))
        assert prune(config, tmp_path / 'run', '--plan') == 0
        assert 'target TorchEager: widths are multiples of 4 (dense' in capsys.readouterr().out

    def test_the_cut_keeps_to_the_grid(self, tmp_path: Path) -> None:
        config = write_config(tmp_path, short(dict(target=GRID)))
        assert prune(config, tmp_path / 'run') == 0
        masks = Masks.load(next((tmp_path / 'run').rglob('masks.safetensors')))
        kept = [int(mask.sum()) for mask in masks.values()]
        assert any(int(mask.sum()) < mask.numel() for mask in masks.values())
        assert all(width % 4 == 0 for width in kept)
        assert not any(
            'off the grid' in warning for warning in summary(tmp_path / 'run')['warnings']
        )

    def test_a_cut_off_the_grid_is_a_warning(self, tmp_path: Path) -> None:
        graph = dict(target=GRID, limits=dict(round_to=3))
        assert prune(write_config(tmp_path, short(graph)), tmp_path / 'run') == 0
        (warning,) = (
            w for w in summary(tmp_path / 'run')['warnings'] if 'layers off the grid' in w
        )
        assert 'select_mask: TorchEager, ' in warning

    def test_mistakes_are_collected(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        content = short(dict(target='TorchEgar'), source='L1Nrom')
        assert prune(write_config(tmp_path, content), tmp_path / 'run') == 2
        printed = capsys.readouterr().err
        assert "graph: target: unknown runtime 'TorchEgar'; did you mean 'TorchEager'" in printed
        assert "unknown mask source 'L1Nrom'" in printed
