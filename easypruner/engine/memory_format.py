"""ChannelsLastHook: trains a network with the channels last in memory."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.hooks import Hook

from easypruner.base.modules import unwrapped
from easypruner.registry import HOOKS


@HOOKS.register_module()
class ChannelsLastHook(Hook):
    """Stores weights of four dimensions with the channels last; activations follow them.

    Values, shapes and checkpoints stay as they are. Convolutions on CPUs, and in half precision on
    GPUs, are often faster so. Networks that reshape activations by ``view`` may not run with it.
    """

    def before_run(self, runner: Any) -> None:
        """Store the weights of the runner's model again."""
        unwrapped(runner.model).to(memory_format=torch.channels_last)
