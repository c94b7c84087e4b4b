"""Files of masks: each format is recognized, and no code in them is run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from easypruner import Masks
from easypruner.errors import MaskError
from easypruner.strategies.sources.layer_masks import load_masks


def header_length(path: Path) -> int:
    return int.from_bytes(path.read_bytes()[:8], 'little')


def test_our_own_files_are_recognized_whatever_the_length_of_their_header(tmp_path: Path) -> None:
    path, actual = tmp_path / 'masks.safetensors', set()
    for length in range(1, 300):
        masks = Masks({'g' * length: torch.tensor([True, False, True, True])})
        masks.save(path)
        assert load_masks(path) == (masks, True)
        actual.add(header_length(path) % 256)
    # Headers are padded to multiples of 8. One of these is 0x80, with which a pickle begins.
    assert actual == set(range(0, 256, 8))


def test_safetensors_of_others_begin_with_any_two_bytes(tmp_path: Path) -> None:
    entry = {'body.0.1': {'dtype': 'BOOL', 'shape': [8], 'data_offsets': [0, 8]}}
    path = tmp_path / 'masks.bin'
    for length in (*range(256, 512), int.from_bytes(b'PK', 'little')):
        header = json.dumps(entry).encode().ljust(length)
        path.write_bytes(length.to_bytes(8, 'little') + header + bytes([1, 0] * 4))
        masks, of_groups = load_masks(path)
        assert masks['body.0.1'].tolist() == [True, False] * 4 and not of_groups


@pytest.mark.parametrize('kept', [0, 2, 3, 40])
def test_missing_and_damaged_files(kept: int, tmp_path: Path) -> None:
    path = tmp_path / 'mask.pth'
    with pytest.raises(MaskError, match='there is no mask file'):
        load_masks(path)
    torch.save({'body.0.1': torch.ones(8) > 0}, path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(MaskError, match='cannot be read as masks'):
        load_masks(path)


def test_nothing_is_run_from_a_file(tmp_path: Path) -> None:
    class Harmful:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / 'ran',)

    torch.save({'body.0.1': Harmful()}, tmp_path / 'mask.pth')
    with pytest.raises(MaskError, match='cannot be read as masks') as caught:
        load_masks(tmp_path / 'mask.pth')
    assert not (tmp_path / 'ran').exists()
    # torch's message about such a file says how to run its code, in bold.
    reported = str(caught.value)
    assert 'weights_only' not in reported and reported.isprintable()
    assert caught.value.__cause__ is None and caught.value.__suppress_context__


def test_files_of_another_kind(tmp_path: Path) -> None:
    path = tmp_path / 'mask.txt'
    for content in (
        b'',
        b'layer1: 1, 0, 1',
        b'PK\x07\x08 no zip',
        b'\x80\x04\x95 no torch',
        b'{' * 40,
    ):
        path.write_bytes(content)
        with pytest.raises(MaskError, match='neither a safetensors file nor one'):
            load_masks(path)
    Masks().save(path)
    with pytest.raises(MaskError, match='holds no masks'):
        load_masks(path)
