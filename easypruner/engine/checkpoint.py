"""Files of weights and training checkpoints. They load without unpickling."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.logging import HistoryBuffer
from torch import Tensor, nn

from easypruner.base.files import write_whole
from easypruner.checkpoints.files import load_plain
from easypruner.checkpoints.reading import read_checkpoint
from easypruner.errors import EasyPrunerError


def save_weights(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Write the state dict of ``model`` atomically."""
    state = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    # In memory, torch gives the archive a fixed name, so equal weights give equal files; and an
    # error of the disk stays an OSError.
    content = io.BytesIO()
    torch.save(state, content)
    write_whole(path, content.getbuffer())


def read_weights(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read a state dict, or the state dict in a training checkpoint, without unpickling.

    Raises:
        EasyPrunerError: the file does not exist or does not contain a state dict.
    """
    return dict(read_checkpoint(path).tensors)


def read_plain(path: str | os.PathLike[str], map_location: Any = 'cpu') -> dict[str, Any]:
    """Read a dict that ``torch.save`` wrote, without unpickling.

    Raises:
        EasyPrunerError: the file does not exist or contains something else.
    """
    content = load_plain(path, EasyPrunerError, map_location)
    if not isinstance(content, Mapping):
        raise EasyPrunerError(
            f'the checkpoint {os.fspath(path)!r} does not contain a state dict; '
            'expected a state dict saved by torch.save'
        )
    return dict(content)


def fill(model: nn.Module, weights: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Copy weights into ``model``. Every tensor has to fit.

    Args:
        model: the network to change.
        weights: a state dict.
        path: the file that the weights come from, for messages.

    Raises:
        EasyPrunerError: a tensor is missing, unexpected or of another shape.
    """
    try:
        model.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        raise EasyPrunerError(
            f'the checkpoint {os.fspath(path)!r} does not fit this {type(model).__name__}: {error}'
        ) from error


class PlainCheckpointHook(Hook):
    """Makes training checkpoints of plain values only, so that they load without unpickling.

    MMEngine keeps the history of each logged scalar in an object of its own class. This hook
    replaces such an object by tensors before saving, and restores it after loading.
    """

    priority = 'VERY_LOW'

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Replace objects by plain values."""
        hub = checkpoint['message_hub']
        hub['log_scalars'] = {
            name: _history_to_plain(buffer) for name, buffer in hub['log_scalars'].items()
        }
        for key in ('message_hub', 'meta', 'param_schedulers', 'optimizer'):
            if key in checkpoint:
                checkpoint[key] = _to_plain(checkpoint[key])

    def after_load_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Restore the histories of logged scalars."""
        scalars = checkpoint.get('message_hub', {}).get('log_scalars', {})
        for name, value in scalars.items():
            if isinstance(value, dict):
                values, counts = value['values'].numpy(), value['counts'].numpy()
                scalars[name] = HistoryBuffer(values, counts, max_length=value['max_length'])


def _history_to_plain(buffer: HistoryBuffer) -> dict[str, Any]:
    values, counts = buffer.data
    return {
        'values': torch.as_tensor(np.asarray(values, dtype=np.float64)),
        'counts': torch.as_tensor(np.asarray(counts, dtype=np.int64)),
        'max_length': int(buffer.max_length),
    }


def _to_plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {_to_plain(key): _to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_to_plain(item) for item in value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return torch.as_tensor(value)
    return value
