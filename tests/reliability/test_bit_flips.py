"""A flipped bit in any file of a run is noticed, or changes nothing."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from pathlib import Path

import pytest

import easypruner
from easypruner.errors import EasyPrunerError
from easypruner.report.result import RunResult
from tests.helpers.disturbed import cases, report, results
from tests.helpers.tiny import original_model
from tests.helpers.zygote import Zygote
from tests.reliability.conftest import Whole

pytestmark = pytest.mark.slow

READ_AGAIN = ('03_prune', '05_finetune')
"""Stages that are run again, from the files of the stages before them."""


def flip(file: Path, choose: random.Random) -> None:
    """Flip a random bit of a file."""
    content = bytearray(file.read_bytes())
    content[choose.randrange(len(content))] ^= 1 << choose.randrange(8)
    file.write_bytes(content)


def test_a_flipped_bit_in_a_file_of_a_stage_is_noticed_on_resume(
    zygote: Zygote, whole: Whole, tmp_path: Path
) -> None:
    choose, outcomes = random.Random(0), Counter[str]()
    for number in range(cases(6, 100)):
        run = tmp_path / f'run{number}'
        shutil.copytree(whole.folder, run)
        again = choose.choice(READ_AGAIN)
        for folder in sorted(p for p in run.glob('[0-9]*_*') if p.name >= again):
            shutil.rmtree(folder)
        files = sorted(
            p
            for p in run.glob('[0-9]*_*/*')
            if p.is_file() and p.suffix in ('.pth', '.json', '.safetensors') and p.stat().st_size
        )
        file = choose.choice(files)
        flip(file, choose)
        end = zygote.run(['prune', whole.config, '--work-dir', run, '--resume'], run)
        outcomes[_kind(end.code, end.is_clean, run, whole, file.name)] += 1
        shutil.rmtree(run)
    report('bit flips in files of stages', number + 1, outcomes)
    assert set(outcomes) <= {'refused', 'the same result'}, outcomes


def _kind(code: int, clean: bool, run: Path, whole: Whole, name: str) -> str:
    if code == 2 and clean:
        return 'refused'
    if code == 0 and results(run, stages=False) == results(whole.folder, stages=False):
        return 'the same result'
    return f'{name}: code {code}, clean {clean}'


def test_a_flipped_bit_in_a_result_is_noticed_when_it_is_read(whole: Whole, tmp_path: Path) -> None:
    choose, outcomes = random.Random(1), Counter[str]()
    names = ('pruned.pth', 'architecture.json', 'masks.safetensors', 'summary.json')
    expected = _read(whole.folder)
    for number in range(cases(40, 200)):
        run = tmp_path / f'run{number}'
        run.mkdir()
        for name in names:
            shutil.copy(whole.folder / name, run / name)
        name = choose.choice(names)
        flip(run / name, choose)
        try:
            same = _read(run) == expected
            outcomes['the same result' if same else f'another {name}'] += 1
        except EasyPrunerError:
            outcomes['refused'] += 1
        shutil.rmtree(run)
    report('bit flips in results', number + 1, outcomes)
    assert set(outcomes) <= {'refused', 'the same result'}, outcomes


def _read(folder: Path) -> list[object]:
    """Return what the public functions read from the results of a run."""
    model = easypruner.load_pruned(
        original_model, folder / 'pruned.pth', folder / 'architecture.json'
    )
    weights = {name: tensor.numpy().tobytes() for name, tensor in model.state_dict().items()}
    masks = easypruner.Masks.load(folder / 'masks.safetensors')
    result = RunResult.load(folder)
    return [weights, {name: mask.tolist() for name, mask in masks.items()}, result.rows]
