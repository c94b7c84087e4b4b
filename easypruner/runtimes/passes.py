"""Passes of networks, to be timed: on accelerators, and at several places in the memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from easypruner.runtimes.program import advising_dtype
from easypruner.runtimes.runtime import Runtime
from easypruner.runtimes.timing import Pass, Run

_FEWEST, MOST = 2, 16
_SIZE = 15_000_000
"""The bytes of the parameters up to which a network is loaded as often as it should be."""


def loaded(
    runtime: Runtime, network: nn.Module, inputs: Any, device: torch.device, places: int = MOST
) -> Pass:
    """Return the passes of a network in a runtime, at several places in the memory.

    Where a network is in the memory changes the time of its passes. Loaded once, two networks may
    seem to differ by some percent more or less than they do over many places.

    Args:
        runtime: the runtime; it loads a network anew for each binding, if this is soon done.
        network: the network, in evaluation mode.
        inputs: its inputs, on ``device``.
        device: the device on which it runs.
        places: the number of places; less for a large network, at least two.
    """
    size = sum(p.numel() * p.element_size() for p in network.parameters())
    count = min(max(places * _SIZE // max(size, 1), _FEWEST), places)
    with advising_dtype(network):
        session = runtime.fixed_session(network, inputs)
        return [synchronized(session.bind(inputs), device) for _ in range(count)]


def synchronized(run: Run, device: torch.device) -> Run:
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
