"""Tensor backends: the kinds of stand-ins on which a forward pass may run."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from easypruner.base.settings import changed_setting
from easypruner.graph.recording.asked import Answer, AskedValues, give_again
from easypruner.graph.recording.list_indices import list_indices_kept
from easypruner.graph.recording.meta_shortcuts import META
from easypruner.graph.recording.values import Guess, Values, guess_result, is_known


@dataclass(frozen=True)
class TensorBackend:
    """A kind of stand-ins for the tensors of a model: meta, fake or real tensors.

    Attributes:
        has_values: whether the stand-ins are real tensors.
        make: a function that makes a stand-in of a tensor.
        active: a function that returns the context in which operations on stand-ins must run.
        start: a function that returns what runs the operations of a pass; None for torch alone.
        guesses: whether results that depend on the values of weights are guessed.
        replays: whether these results are those of a pass on real tensors.
    """

    has_values: bool
    make: Callable[[Tensor], Tensor]
    active: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext
    start: Callable[[], Values | AskedValues | None] = lambda: None
    guesses: bool = False
    replays: bool = False


def make_backends() -> Iterator[TensorBackend]:
    """Yield the backends on which a forward pass may run, the cheapest first.

    Meta tensors do not mix with the tensors that a model has in plain attributes on other devices.
    Fake tensors do. Only real tensors have values that depend on weights. To compute them takes
    long in a large network, so that there they are guessed.
    """
    yield _make_meta_backend()
    yield _make_meta_backend(guess_result, guesses=True)
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    yield TensorBackend(
        False, lambda tensor: fake.from_tensor(tensor.detach()), lambda: _quiet(fake)
    )
    yield TensorBackend(True, lambda tensor: tensor.detach().clone(), start=AskedValues)


def make_replaying_backend(answers: Sequence[Answer]) -> TensorBackend:
    """Return the meta backend on which code gets the values that it got in a pass before.

    Args:
        answers: those of the pass on real tensors, in order.
    """
    return _make_meta_backend(lambda *asked: give_again(answers, *asked), replays=True)


def _make_meta_backend(guess: Guess | None = None, **kind: bool) -> TensorBackend:
    known: dict[int, tuple[Tensor, Tensor]] = {}

    def make(tensor: Tensor) -> Tensor:
        if tensor.layout is not torch.strided:  # a sparse matrix has the axes of a dense one
            return torch.empty(tensor.shape, dtype=tensor.dtype, device=META)
        # torch.empty_like() runs Python code on this device, which takes ten times as long.
        stand_in = torch.empty_strided(
            tensor.shape, tensor.stride(), dtype=tensor.dtype, device=META
        )
        if is_known(tensor):
            known[id(stand_in)] = stand_in, tensor
        return stand_in

    return TensorBackend(
        False,
        make,
        active=list_indices_kept,
        start=lambda: Values(known, guess),
        **kind,
    )


@contextlib.contextmanager
def _quiet(fake: FakeTensorMode) -> Iterator[None]:
    """Enter a fake mode, without its log of failing operations: a failure is expected here."""
    log = logging.getLogger('torch._subclasses.fake_tensor')
    with changed_setting(lambda: log.level, log.setLevel, logging.CRITICAL), fake:
        yield
