"""Checkpoints of all formats and layouts are read, and nothing is unpickled."""

from __future__ import annotations

import argparse
import json
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from safetensors.torch import save_file
from torch import Tensor, nn

from easypruner.checkpoints.files import FOLDER_FILES, downloaded, load_plain
from easypruner.checkpoints.reading import read_checkpoint
from easypruner.errors import EasyPrunerError

PLAIN = {'conv.weight': torch.arange(4.0), 'bn.num_batches_tracked': torch.tensor(3)}
AVERAGED = {name: tensor + 1 for name, tensor in PLAIN.items()}


def same(given: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> bool:
    return given.keys() == expected.keys() and all(
        torch.equal(given[name], expected[name]) for name in expected
    )


def saved(content: Any, folder: Path) -> Path:
    torch.save(content, folder / 'a.pth')
    return folder / 'a.pth'


OPTIMIZER = torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1, momentum=0.9).state_dict()
LAYOUTS: dict[str, Any] = {
    'torch': OrderedDict(PLAIN),
    'mmpretrain': {'meta': {'CLASSES': ('a',)}, 'state_dict': PLAIN},
    'timm': {'epoch': 3, 'arch': 'r', 'state_dict': PLAIN, 'optimizer': OPTIMIZER, 'version': 2},
    'pycls': {'epoch': 3, 'model_state': PLAIN, 'optimizer_state': OPTIMIZER, 'cfg': 'A: 1'},
    'torchvision': {'model': PLAIN, 'optimizer': OPTIMIZER, 'lr_scheduler': {}, 'args': None},
    'lightning': {'state_dict': PLAIN, 'loops': {'a': {}}, 'hyper_parameters': {'lr': 0.1}},
    'deepspeed': {'module': PLAIN, 'dp_world_size': 1},
    'nested': {'model': {'state_dict': PLAIN}, 'ema': {'module': AVERAGED}},
    'other': {'my_network': PLAIN, 'epoch': 3},
}


@pytest.mark.parametrize('layout', LAYOUTS)
def test_layouts(layout: str, tmp_path: Path) -> None:
    weights = read_checkpoint(saved(LAYOUTS[layout], tmp_path))
    assert same(weights.tensors, PLAIN)
    assert weights.ordered


@pytest.mark.parametrize(
    ('content', 'key', 'note'),
    [
        ({'state_dict': PLAIN, 'state_dict_ema': AVERAGED}, 'state_dict_ema', 'averaged ones'),
        ({'model': PLAIN, 'model_ema': AVERAGED}, 'model_ema', 'averaged ones'),
        ({'model': PLAIN, 'ema': {'module': AVERAGED}}, 'ema.module', 'averaged ones'),
        (
            {
                'meta': {'mmengine_version': '0.10.7'},
                'state_dict': PLAIN,
                'ema_state_dict': AVERAGED,
            },
            'ema_state_dict',
            "averages of MMEngine's EMAHook, which are in 'state_dict'",
        ),
    ],
)
def test_averages_are_read_on_request(content: Any, key: str, note: str, tmp_path: Path) -> None:
    file = saved(content, tmp_path)
    usual = read_checkpoint(file)
    assert same(usual.tensors, PLAIN)
    assert note in usual.notes[0] and repr(key) in usual.notes[0]
    assert same(read_checkpoint(file, key).tensors, AVERAGED)
    with pytest.raises(EasyPrunerError, match=f"did you mean '{key}'"):
        read_checkpoint(file, f'{key}s')


def test_averages_alone_need_no_key(tmp_path: Path) -> None:
    assert same(read_checkpoint(saved({'model_ema': AVERAGED}, tmp_path)).tensors, AVERAGED)


def test_a_checkpoint_of_several_networks(tmp_path: Path) -> None:
    file = saved({'student': PLAIN, 'teacher': AVERAGED}, tmp_path)
    with pytest.raises(EasyPrunerError, match="under 'student', 'teacher'"):
        read_checkpoint(file)
    assert same(read_checkpoint(file, 'teacher').tensors, AVERAGED)


class TestFormats:
    def test_safetensors_by_name_and_by_content(self, tmp_path: Path) -> None:
        for name in ('a.safetensors', 'a.pth'):
            save_file(PLAIN, tmp_path / name)
            weights = read_checkpoint(tmp_path / name)
            assert same(weights.tensors, PLAIN) and not weights.ordered

    def test_old_files_of_torch(self, tmp_path: Path) -> None:
        file = tmp_path / 'a.pth'
        torch.save(PLAIN, file, _use_new_zipfile_serialization=False)
        assert same(read_checkpoint(file).tensors, PLAIN)

    @pytest.mark.parametrize('name', FOLDER_FILES)
    def test_folders_of_hugging_face(self, name: str, tmp_path: Path) -> None:
        (tmp_path / 'config.json').write_text('{}')
        names, save = list(PLAIN), save_file if 'safetensors' in name else torch.save
        if name.endswith('.json'):
            files = {'conv.weight': '1-of-2', 'bn.num_batches_tracked': '2-of-2'}
            (tmp_path / name).write_text(json.dumps({'metadata': {}, 'weight_map': files}))
            for each in names:
                save({each: PLAIN[each]}, tmp_path / files[each])  # type: ignore[operator]
        else:
            save(PLAIN, tmp_path / name)  # type: ignore[operator]
        assert same(read_checkpoint(tmp_path).tensors, PLAIN)
        assert same(read_checkpoint(tmp_path / name).tensors, PLAIN)

    @pytest.mark.parametrize(
        ('index', 'message'),
        [
            ('{', 'cannot be read'),
            ('[]', 'cannot be read'),
            ('{"weight_map": 3}', 'cannot be read'),
            ('{"weight_map": {"a": "../a.safetensors"}}', 'beside the index'),
            ('{"weight_map": {"a": "gone.safetensors"}}', "gone.safetensors'; check the path"),
            ('{"weight_map": {"a": "there.safetensors"}}', 'do not have'),
        ],
    )
    def test_damaged_indexes(self, index: str, message: str, tmp_path: Path) -> None:
        save_file(PLAIN, tmp_path / 'there.safetensors')
        (tmp_path / 'model.safetensors.index.json').write_text(index)
        with pytest.raises(EasyPrunerError) as caught:
            read_checkpoint(tmp_path)
        assert message in str(caught.value)

    def test_other_folders(self, tmp_path: Path) -> None:
        (tmp_path / 'sub').mkdir()
        (tmp_path / 'sub' / 'epoch_1.pth').touch()
        with pytest.raises(EasyPrunerError, match=r'expected one of .*, got epoch_1\.pth'):
            read_checkpoint(tmp_path / 'sub')

    @pytest.mark.parametrize('cut', [9, 40, 100])
    def test_cut_off_files(self, cut: int, tmp_path: Path) -> None:
        save_file(PLAIN, tmp_path / 'a.safetensors')
        torch.save(PLAIN, tmp_path / 'a.pth')
        for file in (tmp_path / 'a.safetensors', tmp_path / 'a.pth'):
            file.write_bytes(file.read_bytes()[:cut])
            with pytest.raises(EasyPrunerError, match=file.name):
                read_checkpoint(file)

    def test_urls(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path / 'hub'))
        url = saved(PLAIN, tmp_path).as_uri()
        assert same(read_checkpoint(url).tensors, PLAIN)
        assert downloaded(url) == tmp_path / 'hub' / 'checkpoints' / 'a.pth'
        with pytest.raises(EasyPrunerError, match='cannot be downloaded'):
            read_checkpoint((tmp_path / 'gone.pth').as_uri())


class TestPickles:
    def test_objects_of_mmengine_and_timm_are_ignored(self, tmp_path: Path) -> None:
        """Their own training checkpoints have such objects beside the weights."""
        history = HistoryBuffer()
        history.update(1.5)
        content = {
            'state_dict': PLAIN,
            'message_hub': {'log_scalars': {'loss': history}, 'runtime_info': {'a': np.ones(2)}},
            'args': argparse.Namespace(model='resnet50', path=Path('a')),
        }
        assert same(read_checkpoint(saved(content, tmp_path)).tensors, PLAIN)

    def test_other_readers_stay_strict(self, tmp_path: Path) -> None:
        before = {*torch.serialization.get_safe_globals()}
        file = saved({'state_dict': PLAIN, 'args': argparse.Namespace()}, tmp_path)
        read_checkpoint(file)
        assert {*torch.serialization.get_safe_globals()} == before
        with pytest.raises(EasyPrunerError, match=r'argparse\.Namespace'):
            load_plain(file, EasyPrunerError)

    def test_an_ignored_object_is_not_a_weight(self, tmp_path: Path) -> None:
        file = saved({'state_dict': {**PLAIN, 'b': np.ones(2)}}, tmp_path)
        with pytest.raises(EasyPrunerError, match='does not contain a state dict'):
            read_checkpoint(file)

    def test_a_known_name_calls_nothing(self, tmp_path: Path) -> None:
        """getattr is in the histories of MMEngine, and may lead anywhere."""

        class Evil:
            def __reduce__(self) -> Any:
                return getattr, (Path(tmp_path / 'trap'), 'touch')

        class Caller:
            def __reduce__(self) -> Any:
                return Path(tmp_path / 'trap').touch, ()

        saved({'state_dict': PLAIN, 'evil': Evil()}, tmp_path)
        assert same(read_checkpoint(tmp_path / 'a.pth').tensors, PLAIN)
        saved({'state_dict': PLAIN, 'evil': Caller()}, tmp_path)
        with pytest.raises(EasyPrunerError, match='cannot be read as plain weights'):
            read_checkpoint(tmp_path / 'a.pth')
        assert not (tmp_path / 'trap').exists()

    @pytest.mark.parametrize('beside', [True, False])
    def test_other_objects_are_refused(self, beside: bool, tmp_path: Path) -> None:
        class Evil:
            def __reduce__(self) -> Any:
                return exec, (f'open({str(tmp_path / "trap")!r}, "w")',)

        content = {'state_dict': PLAIN, 'e': Evil()} if beside else {'conv.weight': Evil()}
        with pytest.raises(EasyPrunerError) as caught:
            read_checkpoint(saved(content, tmp_path))
        message = str(caught.value)
        assert 'builtins.exec' in message or 'exec' in message
        assert 'cannot be read as plain weights' in message
        assert 'The file is more than weights; save the weights alone' in message
        assert not (tmp_path / 'trap').exists()

    def test_a_whole_model_is_refused_with_advice(self, tmp_path: Path) -> None:
        with pytest.raises(
            EasyPrunerError, match=r'is a whole model; .* torch\.save\(model\.state_dict\(\)'
        ):
            read_checkpoint(saved(nn.Linear(2, 2), tmp_path))
