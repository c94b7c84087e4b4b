"""Runs whose data, hooks, evaluator, regularizer or numbers fail: each message names the part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.helpers.bad_parts import BAD_SAMPLE, IMPORTS, damaged_loader
from tests.helpers.tiny import prune, tiny_config, write_config

ADAM = dict(optimizer=dict(_delete_=True, type='Adam', lr=1e-3))


def message(
    folder: Path, capsys: pytest.CaptureFixture[str], stage: dict[str, Any], **changes: Any
) -> str:
    """Run a Train stage that fails, check that nothing broken is saved, and return the message."""
    stages = [
        dict(type='Train', name='first', epochs=2, **stage),
        dict(type='Evaluate'),
        dict(type='Report'),
    ]
    config = write_config(folder, tiny_config(stages=stages, **(IMPORTS | changes)))
    assert prune(config, folder / 'run') == 2
    assert not (folder / 'run' / 'pruned.pth').exists()
    assert not (folder / 'run' / '00_first' / 'weights.pth').exists()
    printed = capsys.readouterr().err
    assert 'Traceback' not in printed
    return printed


def test_a_diverging_loss(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = message(tmp_path, capsys, dict(optim_wrapper=dict(optimizer=dict(lr=1e6))))
    assert "stage 'first', epoch " in text
    assert 'of 2, iteration ' in text
    assert 'the loss is nan' in text
    assert 'use a lower learning rate (it is ' in text


@pytest.mark.parametrize('optim_wrapper', [None, ADAM], ids=['gradient', 'proximal'])
def test_a_penalty_whose_gradient_is_nan(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], optim_wrapper: Any
) -> None:
    regularizer = dict(type='Failing', how='nan gradient')
    stage = dict(regularizer=regularizer, optim_wrapper=optim_wrapper)
    text = message(tmp_path, capsys, stage)
    assert "stage 'first', epoch 2 of 2, iteration 2 of 3: what the regularizer Failing" in text
    assert 'is nan' in text
    assert 'correct this plugin' in text


def test_a_penalty_that_raises(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = message(tmp_path, capsys, dict(regularizer=dict(type='Failing', how='raise')))
    assert "stage 'first', epoch 2 of 2, iteration 2 of 3: penalty() of the plugin Failing" in text
    assert 'raised IndexError: index 5 is out of bounds' in text
    assert 'bad_parts.py, line ' in text


@pytest.mark.parametrize(
    ('how', 'expected'),
    [
        ('float', 'returned a float 0.5'),
        ('vector', 'returned a float32 parameter of shape (4,)'),
        ('no gradient', 'returned a tensor without a gradient'),
    ],
)
def test_a_penalty_that_returns_something_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], how: str, expected: str
) -> None:
    text = message(tmp_path, capsys, dict(regularizer=dict(type='Failing', how=how)))
    assert "stage 'first', epoch 2 of 2, iteration 2 of 3: penalty() of Failing" in text
    assert expected in text


def test_a_sample_that_is_nan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = message(tmp_path, capsys, {}, train_dataloader=damaged_loader('train', 'nan'))
    assert f'because of the data: sample {BAD_SAMPLE} of the data set of train_dataloader' in text
    assert "is not finite in ['inputs']" in text


@pytest.mark.slow
def test_a_worker_that_dies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    loader = damaged_loader('train', 'exit', num_workers=1)
    text = message(tmp_path, capsys, {}, train_dataloader=loader)
    assert "stage 'first', epoch 1 of 2, iteration 1 of 3: the data loader train_dataloader" in text
    assert 'exited unexpectedly' in text
    assert 'set a lower num_workers' in text


def test_a_sample_that_a_worker_cannot_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loader = damaged_loader('train', 'raise', num_workers=1)
    text = message(tmp_path, capsys, {}, train_dataloader=loader)
    assert 'the data loader train_dataloader raised ValueError: a damaged image' in text
    assert 'bad_parts.py, line ' in text


def test_a_hook_that_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # The plan trains for one epoch only.
    hooks = [dict(type='FailingHook', method='before_train_epoch', calls=2)]
    text = message(tmp_path, capsys, {}, custom_hooks=hooks)
    where = "stage 'first', epoch 2 of 2, iteration 1 of 3"
    assert f'{where}: before_train_epoch() of the hook FailingHook' in text
    assert "raised KeyError: 'no such entry'" in text
