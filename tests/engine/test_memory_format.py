"""ChannelsLastHook: the weights are stored with the channels last, and nothing else changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from easypruner.engine.checkpoint import read_weights
from tests.helpers.tiny import prune, tiny_config, write_config

_SEEN: list[bool] = []


@HOOKS.register_module()
class SeesFormat(Hook):
    """Notes whether the weights of all convolutions have the channels last."""

    def after_train_epoch(self, runner: Any) -> None:
        weights = [p for p in runner.model.parameters() if p.dim() == 4 and p.shape[1] > 1]
        _SEEN.append(
            bool(weights)
            and all(p.is_contiguous(memory_format=torch.channels_last) for p in weights)
        )


def test_weights_have_the_channels_last_and_the_same_values(tmp_path: Path) -> None:
    results = []
    for name, hooks in (('last', [dict(type='easypruner.ChannelsLastHook')]), ('first', [])):
        _SEEN.clear()
        stages = [
            dict(type='Train', name='baseline', epochs=1, row='baseline'),
            dict(type='SelectMask', source=dict(type='L1Norm', budget=dict(type='Macs', keep=0.5))),
            dict(type='Prune'),
            dict(type='Train', name='finetune', epochs=1, row='finetuned'),
            dict(type='Report'),
        ]
        content = tiny_config(stages=stages)
        content['custom_hooks'] = [*hooks, dict(type='SeesFormat')]
        assert prune(write_config(tmp_path / name, content), tmp_path / name / 'run') == 0
        assert _SEEN and all(seen == (name == 'last') for seen in _SEEN)
        results.append(read_weights(tmp_path / name / 'run' / 'pruned.pth'))
    last, first = results
    assert {n: v.shape for n, v in last.items()} == {n: v.shape for n, v in first.items()}
    assert all(value.is_contiguous() or value.dim() == 4 for value in last.values())
    for name, value in first.items():
        torch.testing.assert_close(last[name], value, rtol=0.05, atol=0.01)
