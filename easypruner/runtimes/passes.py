"""Passes of networks on accelerators: a pass is over when the device has finished."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def synchronized(run: Callable[[], Any], device: torch.device) -> Callable[[], Any]:
    """Return a function that runs a network and waits for the device.

    Args:
        run: the function that runs the network.
        device: the device on which it runs.
    """
    backend: Any = getattr(torch, device.type, None)
    wait = getattr(backend, 'synchronize', None)
    if device.type == 'cpu' or wait is None:
        return run

    def run_and_wait() -> Any:
        outputs = run()
        wait()
        return outputs

    return run_and_wait
