"""Networks that are exported or timed stay as their user has given them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from torch import nn

from easypruner.base.modules import restoring_buffers
from easypruner.graph.recording.forward_state import unchanged


@contextmanager
def untouched(*networks: nn.Module) -> Iterator[None]:
    """Restore after a block what forward passes change: buffers, attributes, random numbers.

    A network may count its passes, or keep what it has computed for the sizes of its inputs.
    """
    with ExitStack() as stack:
        for network in networks:
            stack.enter_context(unchanged(network))
        stack.enter_context(restoring_buffers(*networks))
        yield
