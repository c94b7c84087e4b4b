"""Only what the user of a config wrote is checked for unknown keys."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from easypruner.engine.config import read_config
from easypruner.engine.config_keys import unchecked_keys
from easypruner.engine.shares import scheduled_epochs
from easypruner.errors import ConfigError, Mistakes
from easypruner.pipeline.preflight import _check_keys
from tests.helpers.tiny import tiny_config

BASE = """
dataset_type = 'Digits'
train_pipeline = [dict(type='PackInputs')]
zebra = 3
"""


def mistakes_of(path: Path, options: dict[str, Any] | None = None, foreign: bool = False) -> str:
    mistakes = Mistakes()
    _check_keys(read_config(path, options or {}, foreign=foreign), mistakes)
    return '\n'.join(mistakes.found)


def write(folder: Path, text: str) -> Path:
    file = folder / 'mine.py'
    needed = ''.join(f'{key} = {value!r}\n' for key, value in tiny_config().items())
    (folder / 'base.py').write_text(needed + BASE)
    file.write_text("_base_ = 'base.py'\n" + text)
    return file


@pytest.mark.parametrize(
    'text',
    [
        '',
        "root = 'data/'\nload_from = root + 'weights.pth'",
        "root = 'data/'\ndef path():\n    return root\nload_from = path()",
        "models = dict(type='A')\nmodel = models",
        "root = 'x'\nload_from = '{{_base_.root}}'",
        'steps = [1, 2]\nlast = [step for step in steps]\nseed = last[0]',
        'from math import pi\nseed = int(pi)',
        "work_dir = '{{ fileDirname }}/run'",
    ],
)
def test_bases_and_what_the_code_reads_are_used(text: str, tmp_path: Path) -> None:
    file = write(tmp_path, text)
    if '_base_.' in text:
        (tmp_path / 'base.py').write_text((tmp_path / 'base.py').read_text() + "root = 'y'\n")
    assert mistakes_of(file) == ''


@pytest.mark.parametrize(
    ('text', 'options', 'key'),
    [
        ('optim_wraper = dict()', {}, 'optim_wraper'),
        ("dataset_type = 'ImageNet'", {}, 'dataset_type'),
        ('', {'dataset_type': 'ImageNet'}, 'dataset_type'),
        ('', {'train_dataloder.batch_size': 2}, 'train_dataloder'),
        ('zoo: int = 30417', {}, 'zoo'),
        ('for zoo in range(30417, 30418): pass', {}, 'zoo'),
    ],
)
def test_what_the_user_wrote_is_checked(
    text: str, options: dict[str, Any], key: str, tmp_path: Path
) -> None:
    file = write(tmp_path, text)
    assert f'unknown key {key!r}' in mistakes_of(file, options)
    # The file itself may belong to another package.
    assert (f'unknown key {key!r}' in mistakes_of(file, options, foreign=True)) == bool(options)


@pytest.mark.parametrize('foreign', [False, True])
def test_options_cannot_change_what_the_config_has_used_already(
    foreign: bool, tmp_path: Path
) -> None:
    file = write(tmp_path, "folder = 'data'\nload_from = folder + '/w.pth'\n")
    batch = tiny_config()['train_dataloader']['batch_size']
    options = {'folder': 'other', 'zebra': 4, 'train_pipeline': [], 'new': batch, 'more.x': 1}
    found = mistakes_of(file, options, foreign)
    for key in ('folder', 'zebra', 'train_pipeline', 'new', 'more'):
        assert f'unknown key {key!r}: if it is a variable' in found
    assert mistakes_of(file, {'load_from': 'y.pth', 'optim_wrapper.clip_grad': None}, foreign) == ''


def test_other_formats_are_checked(tmp_path: Path) -> None:
    write(tmp_path, '')
    file = tmp_path / 'mine.json'
    file.write_text(json.dumps({'_base_': 'base.py', 'zoo': 30417, 'root': '{{ fileDirname }}'}))
    found = mistakes_of(file)
    assert "'zoo'" in found
    assert 'dataset_type' not in found


def test_copies_remember_it(tmp_path: Path) -> None:
    config = read_config(write(tmp_path, ''), {})
    assert {'dataset_type', 'train_pipeline'} <= unchecked_keys(copy.deepcopy(config))


def test_a_file_that_is_no_config_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / 'mine.py'
    file.write_text('model = dict(')
    with pytest.raises(ConfigError, match='cannot be read as a config: SyntaxError'):
        read_config(file, {})


@pytest.mark.parametrize(
    ('text', 'options', 'epochs'),
    [
        ('', {}, 2),
        ('train_cfg = dict(max_epochs=1)', {}, 2),
        ('', {'train_cfg.max_epochs': 1}, 2),
        ('train_cfg = dict(max_epochs=6)', {'train_cfg.max_epochs': 1}, 2),
        ("train_cfg = dict(max_epochs=6)\nparam_scheduler = dict(type='StepLR')", {}, 6),
        ('', {'train_cfg.max_epochs': 1, 'param_scheduler.T_max': 1}, 1),
    ],
)
def test_the_epochs_for_which_the_schedulers_were_written_are_known(
    text: str, options: dict[str, Any], epochs: int, tmp_path: Path
) -> None:
    config = copy.deepcopy(read_config(write(tmp_path, text), options))
    assert scheduled_epochs(config, 'train') == epochs
