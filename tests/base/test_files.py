"""Files are whole or absent, are on the disk when they are named, and damage is noticed."""

from __future__ import annotations

import os
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from easypruner import Masks
from easypruner.base.files import file_hash, make_folder, write_whole, zip_damage
from easypruner.engine.checkpoint import read_weights, save_weights
from easypruner.errors import EasyPrunerError, MaskError
from easypruner.report.result import RunResult
from tests.helpers.run_results import make_result


def flips(path: Path, count: int) -> list[bytes]:
    """Return copies of a file's content with one flipped bit each, of fixed random positions."""
    content, draw = path.read_bytes(), random.Random(0)
    flipped = []
    for bit in draw.sample(range(8 * len(content)), min(count, 8 * len(content))):
        copy = bytearray(content)
        copy[bit // 8] ^= 1 << bit % 8
        flipped.append(bytes(copy))
    return flipped


def test_a_pipe_gets_the_content_and_stays_a_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / 'pipe'
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_whole(pipe, 'text')
    assert pipe.is_fifo() and os.read(reader, 100) == b'text'
    assert [path.name for path in tmp_path.iterdir()] == ['pipe']
    os.close(reader)


def test_a_file_is_flushed_before_it_is_named_and_its_name_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    sync, replace = os.fsync, os.replace

    def synced(handle: int) -> None:
        steps.append('folder' if Path(f'/proc/self/fd/{handle}').is_dir() else 'file')
        sync(handle)

    def named(*paths: Any) -> None:
        steps.append('name')
        replace(*paths)

    monkeypatch.setattr(os, 'fsync', synced)
    monkeypatch.setattr(os, 'replace', named)
    write_whole(tmp_path / 'a.txt', 'text')
    assert steps == ['file', 'name', 'folder']


def test_created_folders_are_listed_innermost_first(tmp_path: Path) -> None:
    inner = tmp_path / 'outer' / 'inner'
    assert make_folder(inner) == [inner, inner.parent]
    assert make_folder(inner) == []


class TestDamage:
    """A damaged file is refused, or has the same content: bits between entries mean nothing."""

    def test_of_weights(self, tmp_path: Path) -> None:
        model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8))
        path = tmp_path / 'weights.pth'
        save_weights(model, path)
        weights, refused = read_weights(path), 0
        for content in flips(path, 300):
            path.write_bytes(content)
            try:
                read = read_weights(path)
            except EasyPrunerError:
                refused += 1
                continue
            assert read.keys() == weights.keys()
            assert all(torch.equal(read[name], weights[name]) for name in weights)
        assert refused > 90

    @pytest.mark.parametrize('lost', [1, 100, 1000])
    def test_of_weights_that_are_cut_off(self, lost: int, tmp_path: Path) -> None:
        path = tmp_path / 'weights.pth'
        save_weights(torch.nn.Linear(30, 30), path)
        assert zip_damage(path) == ''
        path.write_bytes(path.read_bytes()[:-lost])
        with pytest.raises(EasyPrunerError, match='is damaged: it is cut off'):
            read_weights(path)

    def test_of_masks(self, tmp_path: Path) -> None:
        draw = torch.Generator().manual_seed(0)
        masks = Masks({name: torch.rand(40, generator=draw) > 0.5 for name in 'abc'})
        path = tmp_path / 'masks.safetensors'
        masks.save(path)
        assert Masks.load(path) == masks
        for content in flips(path, 300):
            path.write_bytes(content)
            try:
                read = Masks.load(path)
            except MaskError:
                continue
            assert read == masks

    def test_of_a_summary(self, tmp_path: Path) -> None:
        result = make_result(work_dir=tmp_path)
        path = result.save()
        assert RunResult.load(tmp_path) == result
        for content in flips(path, 300):
            path.write_bytes(content)
            try:
                read = RunResult.load(tmp_path)
            except EasyPrunerError:
                continue
            assert replace(read, seconds=result.seconds) == result


def test_a_hash_is_that_of_the_content(tmp_path: Path) -> None:
    (tmp_path / 'a').write_bytes(b'abc')
    assert file_hash(tmp_path / 'a').startswith('ba7816bf8f01cfea')
