#!/usr/bin/env bash
# mmengine 0.10.7: in a checkpoint of a training with EMAHook, 'state_dict' has the averaged weights,
# and 'ema_state_dict' the weights that the optimizer trains.
#
# EMAHook exchanges the two right before a checkpoint is saved, so that tools that read 'state_dict'
# test the averages. Who takes 'ema_state_dict' for the average, as the name and other libraries
# (timm's 'state_dict_ema') suggest, evaluates, prunes or fine-tunes the other network.
#
# Seen: trained weight 2.0, average 1.5; in the checkpoint state_dict has 1.5, ema_state_dict 2.0
#
# Installs the packages in a temporary folder, runs them, and exits with 1 if they behave otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
${PYTHON:-python3} -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    torch==2.14.1 numpy==2.4.6 mmengine==0.10.7 setuptools==81.0.0
"$folder/venv/bin/python" -W ignore - "$folder/work" 2> /dev/null << 'PY'
import sys

import mmengine
import torch
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader

assert mmengine.__version__ == '0.10.7', mmengine.__version__


class Model(BaseModel):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, inputs, mode='tensor'):
        # The gradient is -1, so an update with a learning rate of 1 adds 1.
        return {'loss': -self.weight.sum()}


class Look(Hook):
    """Sees a checkpoint as it is saved, after EMAHook."""

    priority = 'VERY_LOW'

    def before_save_checkpoint(self, runner, checkpoint):
        saved.update(checkpoint)


saved = {}
runner = Runner(
    Model(),
    work_dir=sys.argv[1],
    train_dataloader=DataLoader([{'inputs': torch.zeros(1)}] * 2),
    train_cfg=dict(by_epoch=True, max_epochs=1),
    optim_wrapper=dict(optimizer=dict(type='SGD', lr=1.0)),
    custom_hooks=[dict(type='EMAHook', momentum=0.5), Look()],
    default_hooks=dict(logger=None),
    log_level='CRITICAL',
)
runner.train()
trained = runner.model.weight.item()
(hook,) = [hook for hook in runner.hooks if type(hook).__name__ == 'EMAHook']
average = hook.ema_model.module.weight.item()
one, other = saved['state_dict']['weight'].item(), saved['ema_state_dict']['module.weight'].item()
print(
    f'trained weight {trained}, average {average}; in the checkpoint state_dict has {one}, '
    f'ema_state_dict {other}'
)
assert (one, other) == (average, trained), 'as the names say'
assert one != other
PY
