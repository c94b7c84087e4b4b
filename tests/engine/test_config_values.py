"""Values of a wrong kind at the top of a config, and NaN anywhere, are mistakes with a path."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from easypruner.engine.config import building_runner, read_config
from easypruner.errors import ConfigError
from tests.helpers.mutations import python_text


def read(folder: Path, **content: Any) -> Any:
    file = folder / 'values.py'
    file.write_text(python_text(content))
    return read_config(file, {})


@pytest.mark.parametrize('key', ['visualizer', 'val_cfg', 'randomness', 'env_cfg', 'graph'])
@pytest.mark.parametrize('value', [5, False, [1], 'text'])
def test_a_dict_is_expected(key: str, value: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f'{key}: expected a dict, got'):
        read(tmp_path, **{key: value})


@pytest.mark.parametrize(
    ('key', 'value'),
    [('default_scope', 3), ('load_from', False), ('custom_imports', 0.5), ('custom_hooks', {})],
)
def test_another_kind_is_expected(key: str, value: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f'{key}: expected '):
        read(tmp_path, **{key: value})


def test_all_mistakes_are_reported_together_and_long_values_are_shortened(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, visualizer='x' * 5000, stages=[{'lr': [1, math.nan]}])
    assert 'stages[0].lr[1]: the value is NaN' in str(caught.value)
    assert 'visualizer' in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_none_is_as_good_as_absent(tmp_path: Path) -> None:
    keys = ('visualizer', 'randomness', 'env_cfg', 'default_scope', 'load_from', 'seed')
    config = read(tmp_path, **dict.fromkeys(keys))
    assert config.default_scope == 'mmpretrain'


def test_what_a_runner_builds_is_named_by_its_key() -> None:
    def build_visualizer() -> None:
        raise TypeError('no such backend')

    expected = 'visualizer: cannot be built: TypeError: no such backend'
    with pytest.raises(ConfigError, match=expected), building_runner():
        build_visualizer()
