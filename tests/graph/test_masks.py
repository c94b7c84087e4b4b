"""Masks: True = keep; files come back equal, damaged ones are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from easypruner import Masks
from easypruner.errors import MaskError

some_masks = st.dictionaries(
    st.text('abc.1', min_size=1, max_size=5), st.lists(st.booleans(), min_size=1, max_size=9)
).map(lambda masks: Masks({name: torch.tensor(mask) for name, mask in masks.items()}))


@given(masks=some_masks)
def test_a_file_comes_back_equal(masks: Masks, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp('masks') / 'masks.safetensors'
    masks.save(path)
    assert Masks.load(path) == masks


@given(masks=some_masks)
def test_agreement_with_itself_and_its_opposite(masks: Masks) -> None:
    opposite = Masks({name: ~mask for name, mask in masks.items()})
    assert masks.agreement(masks) == 1.0
    assert opposite.agreement(masks) == (0.0 if masks else 1.0)
    assert masks.removed_units + opposite.removed_units == sum(m.numel() for m in masks.values())


def test_masks_of_other_groups_do_not_compare() -> None:
    one, other = Masks({'a': torch.tensor([True])}), Masks({'b': torch.tensor([True])})
    with pytest.raises(MaskError, match='only in one: a, b'):
        one.agreement(other)


def test_a_missing_or_damaged_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / 'masks.safetensors'
    with pytest.raises(MaskError, match='there is no mask file'):
        Masks.load(path)
    path.write_bytes(b'no masks at all')
    with pytest.raises(MaskError, match='cannot be read as masks'):
        Masks.load(path)


def test_a_failing_save_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / 'masks.safetensors'
    first = Masks({'a': torch.tensor([True, False])})
    first.save(path)
    monkeypatch.setattr('os.replace', lambda *_: (_ for _ in ()).throw(OSError('disk full')))
    with pytest.raises(OSError, match='disk full'):
        Masks({'a': torch.tensor([True, True])}).save(path)
    assert Masks.load(path) == first and len(list(tmp_path.iterdir())) == 1
