"""Checkpoints have only plain values, are written atomically and load strictly."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.logging import HistoryBuffer
from torch import nn

from easypruner.engine.checkpoint import (
    PlainCheckpointHook,
    read_weights,
    save_weights,
)
from easypruner.engine.hooks import EpochSeedHook
from easypruner.engine.pretrained import load_weights
from easypruner.engine.runner import RunnerPlan, StageRunner, build_runner
from easypruner.errors import EasyPrunerError
from tests.helpers.tiny import tiny_config


class Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def trained(folder: Path, *hooks: Hook, **changes: Any) -> StageRunner:
    content = tiny_config(
        stages=None,
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=1)),
        param_scheduler=dict(type='MultiStepLR', milestones=[1]),
        **changes,
    )
    plan = RunnerPlan(
        folder, seed=0, epochs=2, hooks=[PlainCheckpointHook(), EpochSeedHook(0, 0), *hooks]
    )
    runner = build_runner(Config(content), plan)
    runner.train()
    return runner


def histories(runner: StageRunner) -> dict[str, Any]:
    return {
        name: [part.tolist() for part in buffer.data]
        for name, buffer in runner.message_hub.log_scalars.items()
    }


class TestTraining:
    def test_checkpoints_load_without_unpickling(self, tmp_path: Path) -> None:
        trained(tmp_path)
        content = torch.load(tmp_path / 'epoch_1.pth', weights_only=True)
        assert {'state_dict', 'optimizer', 'param_schedulers', 'message_hub'} <= content.keys()

    def test_histories_of_a_running_stage_do_not_change(self, tmp_path: Path) -> None:
        runner = trained(tmp_path)
        buffers = runner.message_hub.log_scalars.values()
        assert all(isinstance(buffer, HistoryBuffer) for buffer in buffers)

    def test_histories_are_restored(self, tmp_path: Path) -> None:
        whole = trained(tmp_path / 'whole')
        (tmp_path / 'whole' / 'last_checkpoint').write_text(str(tmp_path / 'whole' / 'epoch_1.pth'))
        again = trained(tmp_path / 'whole')
        compared = [name for name in histories(whole) if 'time' not in name]
        assert 'train/loss' in compared
        for name in compared:
            assert histories(again)[name] == histories(whole)[name]

    def test_numbers_of_numpy_are_plain(self, tmp_path: Path) -> None:
        import numpy as np

        class Told(Hook):
            def before_train(self, runner: Any) -> None:
                runner.message_hub.update_info('numpy', {'a': np.float32(1.5), 'b': np.arange(3)})

        trained(tmp_path, Told())
        content = torch.load(tmp_path / 'epoch_2.pth', weights_only=True)
        reported = content['message_hub']['runtime_info']['numpy']
        assert reported['a'] == 1.5
        assert reported['b'].tolist() == [0, 1, 2]

    def test_other_shapes_are_refused(self, tmp_path: Path) -> None:
        trained(tmp_path)
        with pytest.raises(EasyPrunerError, match=r'epoch_2\.pth.*does not fit'):
            model = tiny_config()['model']
            model['backbone']['width'] = 8
            model['head']['in_channels'] = 32
            trained(tmp_path, model=model)

    def test_a_training_checkpoint_with_code_in_it_is_refused(self, tmp_path: Path) -> None:
        trained(tmp_path)
        file, trap = tmp_path / 'epoch_2.pth', tmp_path / 'trap'
        content = torch.load(file, weights_only=True)
        torch.save({**content, 'evil': Evil(trap)}, file)
        with pytest.raises(EasyPrunerError, match=r'epoch_2\.pth'):
            trained(tmp_path)
        assert not trap.exists()


class TestWeights:
    def test_weights_are_restored(self, tmp_path: Path) -> None:
        model, other = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
        nn.init.normal_(model.weight)
        save_weights(model, tmp_path / 'a.pth')
        load_weights(other, tmp_path / 'a.pth')
        for name, tensor in model.state_dict().items():
            assert torch.equal(other.state_dict()[name], tensor)

    def test_weights_are_read_from_a_training_checkpoint(self, tmp_path: Path) -> None:
        runner = trained(tmp_path)
        weights = read_weights(tmp_path / 'epoch_2.pth')
        assert weights.keys() == runner.model.state_dict().keys()

    @pytest.mark.parametrize('other', [nn.Linear(2, 3), nn.Linear(3, 3, bias=False), nn.PReLU()])
    def test_another_model_is_refused(self, other: nn.Module, tmp_path: Path) -> None:
        save_weights(nn.Linear(3, 3), tmp_path / 'a.pth')
        before = {name: tensor.clone() for name, tensor in other.state_dict().items()}
        with pytest.raises(EasyPrunerError, match=rf'a\.pth.*{type(other).__name__}'):
            load_weights(other, tmp_path / 'a.pth')
        assert before.keys() == other.state_dict().keys()

    def test_a_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(EasyPrunerError, match='there is no checkpoint'):
            read_weights(tmp_path / 'nowhere.pth')

    def test_files_that_are_not_weights(self, tmp_path: Path) -> None:
        trap = tmp_path / 'trap'
        (tmp_path / 'text.pth').write_text('hello')
        torch.save({'weight': Evil(trap)}, tmp_path / 'evil.pth')
        torch.save([torch.zeros(1)], tmp_path / 'list.pth')
        torch.save({'weight': 3}, tmp_path / 'number.pth')
        for file in sorted(tmp_path.glob('*.pth')):
            with pytest.raises(EasyPrunerError, match=file.name):
                read_weights(file)
        assert not trap.exists()

    def test_a_failed_write_leaves_the_old_file(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        model, path = nn.Linear(2, 2), tmp_path / 'a.pth'
        save_weights(model, path)

        def fail(handle: int) -> None:
            raise OSError('disk full')

        monkeypatch.setattr(os, 'fsync', fail)
        with pytest.raises(OSError, match='disk full'):
            save_weights(nn.Linear(2, 2), path)
        assert torch.equal(read_weights(path)['weight'], model.weight)
        assert [file.name for file in tmp_path.iterdir()] == ['a.pth']

    def test_equal_weights_give_equal_files(self, tmp_path: Path) -> None:
        model = nn.Linear(2, 2)
        for name in 'ab':
            save_weights(model, tmp_path / f'{name}.pth')
        assert (tmp_path / 'a.pth').read_bytes() == (tmp_path / 'b.pth').read_bytes()
