"""The stage that exports the network of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from easypruner.runtimes.exporting import SUMMARY
from tests.helpers.tiny import prune, tiny_config, write_config

SOURCE = dict(type='Random', budget=dict(type='Ratio', keep=0.5))


def config(folder: Path, *before: dict[str, Any], **export: Any) -> Path:
    stages = [
        *before,
        dict(type='Evaluate', row='last'),
        dict(type='Export', runtimes=['TorchEager'], **export),
        dict(type='Report', runtimes=[]),
    ]
    return write_config(folder, tiny_config(stages=stages))


@pytest.mark.slow
def test_files_that_are_missing_are_written_again(tmp_path: Path) -> None:
    cut = [dict(type='SelectMask', source=SOURCE), dict(type='Prune', row=None)]
    path = config(tmp_path, *cut)
    run = tmp_path / 'run'
    assert prune(path, run) == 0
    folder = run / 'export'
    names = [entry['network'] for entry in json.loads((folder / SUMMARY).read_text())['files']]
    assert names == ['network', 'unpruned']
    images = torch.rand(2, 1, 8, 8)
    pruned = torch.export.load(folder / 'TorchEager' / 'network.pt2').module()
    expected = pruned(images)
    # Two stages have results that are missing: both write them again.
    (folder / 'TorchEager' / 'network.pt2').unlink()
    (run / 'pruned.pth').unlink()
    assert prune(path, run, '--resume') == 0
    again = torch.export.load(folder / 'TorchEager' / 'network.pt2').module()
    torch.testing.assert_close(again(images), expected)
    assert (run / 'pruned.pth').is_file()


def test_a_network_that_is_not_pruned_stands_alone(tmp_path: Path) -> None:
    assert prune(config(tmp_path), tmp_path / 'run') == 0
    files = json.loads((tmp_path / 'run' / 'export' / SUMMARY).read_text())['files']
    assert [entry['network'] for entry in files] == ['network']


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(runtimes=[]), 'runtimes=[] of Export'),
        (dict(runtimes=['TorchEagr']), "unknown runtime 'TorchEagr'"),
        (dict(unpruned='no'), "unpruned='no' of Export"),
    ],
)
def test_mistakes_are_found_before_the_run(
    settings: dict[str, Any],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stages = [dict(type='Evaluate'), dict(type='Export', **settings), dict(type='Report')]
    path = write_config(tmp_path, tiny_config(stages=stages))
    assert prune(path, tmp_path / 'run') == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / 'run').exists()
