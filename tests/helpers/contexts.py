"""A context as a run gives it, on a handful of made-up batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from easypruner import Context

CLASSES = 5
Batch = tuple[Tensor, Tensor]


def tiny_batches(count: int = 3, size: int = 8, seed: int = 0) -> list[Batch]:
    """Return batches of images of shape (size, 3, 8, 8) and their classes, 0 to 4."""
    generator = torch.Generator().manual_seed(seed)
    return [
        (
            torch.randn(size, 3, 8, 8, generator=generator),
            torch.randint(CLASSES, (size,), generator=generator),
        )
        for _ in range(count)
    ]


def tiny_context(
    model_output: Callable[[Any], Tensor] = lambda output: output,
    batches: int = 3,
    seed: int = 0,
    **parts: Any,
) -> Context:
    """Return a context for the networks of :mod:`tests.helpers.networks`.

    Args:
        model_output: from what a network returns to its logits, ``(n, 5)``.
        batches: how many there are, each of 8 images.
        seed: of the batches, and of the context.
        parts: that are to be others, such as ``folder``.
    """
    data = tiny_batches(batches, seed=seed)

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        images, classes = batch
        weight = next(model.parameters())
        logits = model_output(model(images.to(weight)))
        return nn.functional.cross_entropy(logits, classes.to(weight.device))

    @torch.no_grad()
    def evaluate(model: nn.Module) -> float:
        was_training = model.training
        model.eval()
        right = 0
        for images, classes in tiny_batches(4, seed=seed + 1000):
            found = model_output(model(images.to(next(model.parameters())))).argmax(dim=1)
            right += int((found.cpu() == classes).sum())
        model.train(was_training)
        return 100 * right / 32

    @torch.no_grad()
    def forward(model: nn.Module, batch: Batch) -> object:
        return model(batch[0].to(next(model.parameters())))

    given: dict[str, Any] = dict(
        seed=seed, batches=lambda: iter(data), loss=loss, evaluate=evaluate, forward=forward
    )
    return Context(**(given | parts))


def restless(context: Context, count: int = 3) -> Context:
    """Return a context whose batches are others in each pass, drawn from torch's own chance."""

    def batches() -> Iterator[Batch]:
        for _ in range(count):
            yield torch.randn(8, 3, 8, 8), torch.randint(CLASSES, (8,))

    return replace(context, batches=batches)
