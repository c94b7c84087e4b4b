"""Slimming a plain network loads no library that it does not need, because these cost seconds."""

from __future__ import annotations

import subprocess
import sys

import pytest

_CODE = """
import sys
import torch
from torch import nn
import easypruner

net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1))
slim = easypruner.slim(net, torch.rand(1, 3, 8, 8), macs=0.5)
assert slim.model[0].out_channels < 8
heavy = ['torchvision', 'mmpretrain', 'mmengine', 'mmcv', 'timm', 'transformers', 'pandas']
if hasattr(torch.utils._python_dispatch.TorchDispatchMode, '_should_skip_dynamo'):
    heavy += ['torch._dynamo', 'sympy']
found = [name for name in heavy if name in sys.modules]
assert not found, found

from easypruner.plugins.registry import STAGES
assert {'Prune', 'Train'} <= STAGES.classes.keys() and 'mmengine' in sys.modules
"""


@pytest.mark.in_ci
def test_a_plain_network_is_slimmed_without_other_libraries() -> None:
    done = subprocess.run(
        [sys.executable, '-c', _CODE], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-800:]
