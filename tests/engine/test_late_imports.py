"""MMEngine's optimizers do not import transformers before a config asks for its optimizer."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

_LIBRARY = """
import torch

class Adafactor(torch.optim.SGD):
    pass
"""
_SCRIPT = """
import sys
import torch
import easypruner.engine.schedule
from mmengine.optim import build_optim_wrapper
from mmengine.registry import OPTIMIZERS

assert 'mmengine.optim.optimizer.builder' in sys.modules
assert 'transformers' not in sys.modules
config = dict(type='OptimWrapper', optimizer=dict(type='Adafactor', lr=0.25, momentum=0.5))
model = torch.nn.Linear(1, 1)
optimizer = build_optim_wrapper(model, config).optimizer
import transformers
assert type(optimizer) is transformers.Adafactor, type(optimizer)
assert optimizer.defaults['lr'] == 0.25 and optimizer.defaults['momentum'] == 0.5
assert optimizer.param_groups[0]['params'] == list(model.parameters())
"""


@pytest.mark.in_ci
def test_the_optimizer_imports_its_library_when_it_is_built(tmp_path: Path) -> None:
    (tmp_path / 'transformers.py').write_text(_LIBRARY)
    known = os.environ.get('PYTHONPATH')
    path = os.pathsep.join([str(tmp_path), *([known] if known else [])])
    done = subprocess.run(
        [sys.executable, '-c', _SCRIPT],
        env={**os.environ, 'PYTHONPATH': path},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert not done.returncode, done.stderr
