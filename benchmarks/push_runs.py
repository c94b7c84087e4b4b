"""Runs of benchmarks/push.py: their configs, and what is read from their results."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmengine.config import Config
    from torch import Tensor

    from easypruner import ChannelGraph, Masks, Schedule

ROOT = Path(__file__).resolve().parent.parent
Stages = Sequence[Mapping[str, Any]]

DIGITS = 'r20_digits.py'
MNIST = 'r20_mnist5k_hard_short.py'
SIZES = {DIGITS: 8, MNIST: 28}
"""File of configs/_base_ -> height and width of its images."""
_LOCKS: defaultdict[Path, threading.Lock] = defaultdict(threading.Lock)
_DECAY = 5e-4
OPTIMIZERS: dict[str, dict[str, Any]] = {
    'SGD': dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=_DECAY),
    'SGD, Nesterov': dict(type='SGD', lr=0.1, momentum=0.9, nesterov=True, weight_decay=_DECAY),
    'Adam': dict(type='Adam', lr=2e-3),
    'AdamW': dict(type='AdamW', lr=2e-3, weight_decay=0.05),
    'RMSprop': dict(type='RMSprop', lr=1e-3),
    'Lamb': dict(type='timm.optim.Lamb', lr=1e-2, weight_decay=0.02),
    'Lion': dict(type='timm.optim.Lion', lr=3e-4, weight_decay=0.1),
    'Adafactor': dict(type='TorchAdafactor', lr=1e-2),
    'Muon, AdamW for vectors': dict(type='timm.optim.Muon', lr=5e-3, weight_decay=0.01),
    'AdamW, schedule-free': dict(type='schedulefree.AdamWScheduleFree', lr=1e-2),
}
"""Name of an optimizer -> its settings."""
UNSCHEDULED = 'AdamW, schedule-free'
"""The optimizer whose learning rate stays the same."""


def settings_of(optimizer: str, decay: bool = True) -> dict[str, Any]:
    """Return the keys of a config that choose an optimizer.

    Args:
        optimizer: a name of :data:`OPTIMIZERS`.
        decay: whether its weight decay is kept.
    """
    own = dict(OPTIMIZERS[optimizer], _delete_=True)
    if not decay:
        own['weight_decay'] = 0.0
    scheduler = {'param_scheduler': None} if optimizer == UNSCHEDULED else {}
    return {'optim_wrapper': dict(optimizer=own), **scheduler}


def schedule_of(config: Mapping[str, Any], epochs: int) -> Schedule:
    """Return the schedule of a stage on the digits, for keys that replace those of the base."""
    from mmengine.config import Config
    from mmengine.registry import MODELS, DefaultScope

    from easypruner.engine.config import model_settings
    from easypruner.engine.schedule import measure_schedule

    whole = Config.fromfile(ROOT / 'configs' / '_base_' / DIGITS)
    whole.merge_from_dict(dict(config))
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(model_settings(whole))
        return measure_schedule(whole, 23, epochs, model).slowest(['backbone.bn1.weight'])


def run(config: Mapping[str, Any], base: str, folder: Path, seed: int = 0) -> Path:
    """Run a config over one of configs/_base_, unless it has finished before; return the folder.

    Args:
        config: the keys that replace those of the base.
        base: the name of a file in configs/_base_.
        folder: the work directory.
        seed: the seed of the run.
    """
    # Several jobs share a baseline.
    with _LOCKS[folder]:
        if not (folder / 'summary.json').is_file():
            file = config_file(folder)
            file.parent.mkdir(parents=True, exist_ok=True)
            lines = [f'_base_ = {str(ROOT / "configs" / "_base_" / base)!r}']
            lines += [f'{name} = {value!r}' for name, value in config.items()]
            file.write_text('\n'.join(lines) + '\n', encoding='utf-8')
            command = [sys.executable, str(ROOT / 'tools' / 'prune.py'), str(file)]
            command += ['--seed', str(seed), '--work-dir', str(folder), '--overwrite']
            subprocess.run(command, check=True)
    return folder


def config_file(folder: Path) -> Path:
    """Return the config file of a run."""
    return folder.with_name(f'{folder.name}.py')


def accuracies(folder: Path) -> dict[str, float]:
    """Return row -> accuracy in percent."""
    from easypruner.report.result import RunResult

    return {row.name: row.accuracy for row in RunResult.load(folder).rows}


@dataclass(frozen=True)
class Network:
    """The network of a run before its first cut.

    Attributes:
        config: the config of the run.
        graph: its channel graph, with the weights at the end of the sparsity stage.
        masks: the masks of the cut.
    """

    config: Config
    graph: ChannelGraph
    masks: Masks

    @classmethod
    def of(cls, folder: Path, base: str, stage: str = 'sparse') -> Network:
        """Read the network of a run at the end of a stage."""
        import torch
        from mmengine.config import Config
        from mmengine.registry import MODELS, DefaultScope

        import easypruner
        from easypruner.engine.config import model_settings
        from easypruner.engine.pretrained import load_weights

        config = Config.fromfile(config_file(folder))
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            model = MODELS.build(model_settings(config))
        load_weights(model, next(folder.glob(f'*_{stage}')) / 'weights.pth')
        masks = easypruner.Masks.load(next(folder.glob('*_select_mask')) / 'masks.safetensors')
        size = SIZES[base]
        return cls(config, easypruner.trace(model, torch.zeros(1, 1, size, size)), masks)

    def removed(self, part: str) -> Tensor:
        """Return the magnitudes of removed norm scales (``'weight'``) or biases (``'bias'``)."""
        from easypruner.strategies.measures.remains import Remains

        remains = Remains.of(self.graph, self.masks)
        return remains.all_scales if part == 'weight' else remains.all_biases
