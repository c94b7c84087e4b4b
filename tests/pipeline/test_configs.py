"""Configs are found by path, and the shipped ones by name."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from easypruner.errors import ConfigError
from easypruner.pipeline.configs import find_config, shipped_configs

CONFIGS = Path(__file__).parents[2] / 'configs'


def test_the_shipped_ones_are_those_of_the_folder() -> None:
    assert set(shipped_configs()) == {path.stem for path in CONFIGS.glob('[!_]*.py')}


def test_a_path_comes_before_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, shipped = next(iter(shipped_configs().items()))
    assert find_config(name) == shipped
    monkeypatch.chdir(tmp_path)
    shutil.copy(shipped, name)
    assert find_config(name) == Path(name)


def test_a_typo_of_a_shipped_name() -> None:
    name = next(iter(shipped_configs()))
    with pytest.raises(ConfigError, match=f"did you mean '(configs/)?{name}"):
        find_config(f'configs/{name}s.py')
