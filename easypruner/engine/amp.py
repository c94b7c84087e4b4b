"""Autocast on CPUs, where MMEngine's AmpOptimWrapper refuses to work."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.device import get_device
from mmengine.optim import OptimWrapper
from torch import nn

from easypruner.errors import ConfigError
from easypruner.registry import OPTIM_WRAPPERS

AMP = 'AmpOptimWrapper'
_HALF = ('bfloat16', 'torch.bfloat16')


@OPTIM_WRAPPERS.register_module()
class CpuAmpOptimWrapper(OptimWrapper):
    """Autocasts to bfloat16 on the CPU. It needs no loss scaling: bfloat16 has the range of float.

    Args:
        dtype: ``'bfloat16'``; None stands for the same.
        loss_scale: is not used.
        use_fsdp: is not used.
        **settings: the arguments of MMEngine's OptimWrapper.

    Raises:
        ConfigError: another type is asked for.
    """

    def __init__(
        self, dtype: Any = None, loss_scale: Any = None, use_fsdp: bool = False, **settings: Any
    ) -> None:
        super().__init__(**settings)
        if dtype is not None and str(dtype) not in _HALF:
            raise ConfigError(
                f'{AMP} got dtype={str(dtype)!r}, which needs a GPU; on the CPU use '
                "dtype='bfloat16', or leave it out"
            )

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Autocast in a forward pass, and skip communication while gradients are accumulated."""
        with super().optim_context(model), torch.autocast('cpu', dtype=torch.bfloat16):
            yield


def on_this_device(wrapper: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of an optimizer wrapper, with autocast for CPUs if there is no GPU."""
    on_cpu = wrapper.get('type') in (AMP, f'mmengine.{AMP}') and get_device() == 'cpu'
    return {**wrapper, 'type': 'easypruner.CpuAmpOptimWrapper'} if on_cpu else dict(wrapper)
