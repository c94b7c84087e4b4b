"""Files of masks: each format is recognized, and no code in them is run."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import torch

from easypruner import Masks
from easypruner.errors import MaskError
from easypruner.strategies.sources.mask_files.contents import GroupMasks
from easypruner.strategies.sources.mask_files.layer_masks import LayerMasks
from easypruner.strategies.sources.mask_files.nni_masks import NniMasks
from easypruner.strategies.sources.mask_files.reading import read_masks


def header_length(path: Path) -> int:
    return int.from_bytes(path.read_bytes()[:8], 'little')


def test_our_own_files_are_recognized_whatever_the_length_of_their_header(tmp_path: Path) -> None:
    path, actual = tmp_path / 'masks.safetensors', set()
    for length in range(1, 300):
        masks = Masks({'g' * length: torch.tensor([True, False, True, True])})
        masks.save(path)
        assert read_masks(path) == GroupMasks(masks)
        actual.add(header_length(path) % 256)
    # Headers are padded to multiples of 8. One of these is 0x80, with which a pickle begins.
    assert actual == set(range(0, 256, 8))


def test_safetensors_of_others_begin_with_any_two_bytes(tmp_path: Path) -> None:
    entry = {'body.0.1': {'dtype': 'BOOL', 'shape': [8], 'data_offsets': [0, 8]}}
    path = tmp_path / 'masks.bin'
    for length in (*range(256, 512), int.from_bytes(b'PK', 'little')):
        header = json.dumps(entry).encode().ljust(length)
        path.write_bytes(length.to_bytes(8, 'little') + header + bytes([1, 0] * 4))
        content = read_masks(path)
        assert isinstance(content, LayerMasks)
        assert content.masks['body.0.1'].tolist() == [True, False] * 4


@pytest.mark.parametrize('kept', [0, 2, 3, 40])
def test_missing_and_damaged_files(kept: int, tmp_path: Path) -> None:
    path = tmp_path / 'mask.pth'
    with pytest.raises(MaskError, match='there is no mask file'):
        read_masks(path)
    torch.save({'body.0.1': torch.ones(8) > 0}, path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(MaskError, match='cannot be read as masks'):
        read_masks(path)


def test_nothing_is_run_from_a_file(tmp_path: Path) -> None:
    class Harmful:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / 'ran',)

    torch.save({'body.0.1': Harmful()}, tmp_path / 'mask.pth')
    with pytest.raises(MaskError, match='cannot be read as masks') as caught:
        read_masks(tmp_path / 'mask.pth')
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
            read_masks(path)
    Masks().save(path)
    with pytest.raises(MaskError, match='holds no masks'):
        read_masks(path)


@pytest.mark.parametrize(
    ('text', 'words'),
    [
        ('{"a": 1', 'as JSON or YAML it cannot be read: Expecting'),
        ('a: [1', 'as JSON or YAML it cannot be read: .* line 1'),
        ('[' * 100_000, 'as JSON or YAML it cannot be read'),
        ('[' * 60 + ']' * 60, 'nested more than 50 levels deep'),
        ('a: &a [1, 2]\nb: *a', r'references \(\*name\)'),
        ('!!python/object/apply:os.system [ls]', 'as JSON or YAML it cannot be read'),
        ('{"conv1": [1, 0, 1]}', 'as a text it holds a dict'),
        ('3', 'as a text it holds an int'),
    ],
)
def test_texts_in_no_known_format(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / 'masks.txt'
    path.write_text(text)
    with pytest.raises(MaskError, match=words) as caught:
        read_masks(path)
    assert 'a structure of timm, a sub-network of mmrazor' in str(caught.value)
    assert len(str(caught.value)) < 900


def test_a_default_dict_is_read_without_its_default(tmp_path: Path) -> None:
    masks = defaultdict(dict, {'body.0.0': {'weight': torch.ones(8, 3, 3, 3)}})
    torch.save(masks, tmp_path / 'mask.pth')
    before = [*torch.serialization.get_safe_globals()]
    content = read_masks(tmp_path / 'mask.pth')
    assert isinstance(content, NniMasks) and type(content.masks) is dict
    assert set(torch.serialization.get_safe_globals()) == set(before)
    with pytest.raises(Exception, match=r'weights_only|Weights only'):
        torch.load(tmp_path / 'mask.pth', weights_only=True)
