"""Before a run starts: loaders, hooks, evaluators and regularizers that fail are mistakes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.bad_parts import IMPORTS, damaged_loader
from tests.helpers.tiny import prune, tiny_config, write_config


def planned(folder: Path, capsys: pytest.CaptureFixture[str], **changes: Any) -> tuple[int, str]:
    """Plan a run; return the exit code and the message."""
    config = write_config(folder, tiny_config(**(IMPORTS | changes)))
    code = prune(config, folder / 'run', '--plan')
    assert not (folder / 'run').exists()
    printed = capsys.readouterr().err
    assert 'Traceback' not in printed
    return code, printed


@pytest.mark.parametrize('split', ['train', 'val'])
def test_a_sample_that_cannot_be_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], split: str
) -> None:
    loader = damaged_loader(split, 'raise', sample=0, num_workers=2)
    code, text = planned(tmp_path, capsys, **{f'{split}_dataloader': loader})
    assert code == 2
    assert f'{split}_dataloader: reading a batch raised ValueError: a damaged image' in text
    assert 'bad_parts.py, line ' in text


@pytest.mark.parametrize(
    'method',
    ['before_run', 'after_train_iter', 'after_train_epoch', 'before_val', 'after_val_epoch'],
)
def test_a_hook_that_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str], method: str) -> None:
    hooks = [dict(type='EMAHook'), dict(type='FailingHook', method=method)]
    code, text = planned(tmp_path, capsys, custom_hooks=hooks)
    assert code == 2
    assert f'custom_hooks[1]: {method}() of the hook FailingHook raised KeyError' in text


@pytest.mark.parametrize(
    ('evaluator', 'expected'),
    [
        (dict(type='FailingMetric'), 'raised AttributeError: no results'),
        (dict(type='OneNumber', name='f1'), 'the evaluator reports f1, but no accuracy'),
        (dict(type='OneNumber', name='accuracy', value=101), 'expected percent, from 0 to 100'),
        (dict(type='OneNumber', name='accuracy', value=-1), 'expected percent'),
    ],
)
def test_an_evaluator_that_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], evaluator: Any, expected: str
) -> None:
    code, text = planned(tmp_path, capsys, val_evaluator=evaluator)
    assert code == 2
    assert 'val_evaluator: ' in text
    assert expected in text


@pytest.mark.parametrize('metric', ['FailingMetric', 'NoMetric'])
def test_all_mistakes_are_reported_together_and_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], metric: str
) -> None:
    hooks = [dict(type='FailingHook', method='after_train')]
    evaluator = dict(type=metric)
    changes: Any = dict(custom_hooks=hooks, val_evaluator=evaluator, epochs=3)
    code, text = planned(tmp_path, capsys, **changes)
    assert code == 2
    assert '3 mistakes' in text
    for part in ("unknown key 'epochs'", 'custom_hooks[0]: ', 'val_evaluator: '):
        assert text.count(part) == 1


def test_an_optimizer_that_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrapper = dict(optimizer=dict(type='SGD', lr=0.1), clip_grad=dict(max_nrm=1))
    code, text = planned(tmp_path, capsys, optim_wrapper=wrapper)
    assert code == 2
    assert 'optim_wrapper: the optimizer OptimWrapper raised TypeError: clip_grad_norm_()' in text


@pytest.mark.parametrize('how', ['float', 'no gradient', 'vector', 'raise'])
def test_a_regularizer_that_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    stage = dict(type='Train', regularizer=dict(type='Failing', how=how, after=0))
    code, text = planned(tmp_path, capsys, stages=[stage, dict(type='Report')])
    assert code == 2
    assert 'stages[0]: ' in text
    assert 'Failing' in text
    assert 'expected a tensor' in text or 'without a gradient' in text or 'IndexError' in text


def test_a_regularizer_is_tried_on_a_copy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # It fails at its fourth call; two plans of the same stage call it twice each.
    regularizer = dict(type='Failing', how='raise', after=1)
    stages = [dict(type='Train', name=n, row=n, regularizer=regularizer) for n in 'ab']
    code, _ = planned(tmp_path, capsys, stages=[*stages, dict(type='Report')])
    assert code == 0


def test_one_batch_changes_no_random_state(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    states = []
    for hooks in ([], [dict(type='EMAHook')]):
        planned(tmp_path, capsys, custom_hooks=hooks)
        states.append(torch.get_rng_state())
    assert torch.equal(*states)
