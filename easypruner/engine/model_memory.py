"""The memory that a model needs, compared with that of the machine before the model is built."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from torch import nn

from easypruner.base.randomness import fixed_seed
from easypruner.engine.config import model_settings
from easypruner.errors import ConfigError

_COPIES = 2
"""The copies of the weights that every run has at the same time."""


def check_memory(config: Config) -> None:
    """Raise ConfigError if the weights of a config's model do not fit into the memory.

    The model is built on the meta device, without weights. A model that needs values while it is
    built is not checked.
    """
    with fixed_seed(0), torch.device('meta'):
        try:
            model: nn.Module = MODELS.build(model_settings(config))
        except Exception:
            # Either the model needs values, or the real build reports the mistake.
            return
    tensors = [*model.parameters(), *model.buffers()]
    needed = _COPIES * sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    memory = _memory()
    if needed > memory:
        raise ConfigError(
            f'the weights of the model need {needed / 1e9:.0f} GB of memory for {_COPIES} copies, '
            f'but this machine has {memory / 1e9:.0f} GB; use a smaller model'
        )


def _memory() -> int:
    """Return the memory of the machine, or of the container that this process runs in."""
    memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
    with contextlib.suppress(OSError, ValueError):
        memory = min(memory, int(Path('/sys/fs/cgroup/memory.max').read_text()))
    return memory
