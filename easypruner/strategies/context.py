"""Context: what a strategy may use besides the channel graph."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from easypruner.errors import ConfigError, EasyPrunerError

_Item = TypeVar('_Item')


def _untracked(items: Iterable[_Item], total: int) -> Iterable[_Item]:
    return items


@dataclass(frozen=True)
class Context:
    """What a strategy may use besides the channel graph. A part that is not available is None.

    Attributes:
        seed: the seed of every random choice.
        batches: a function that starts one pass over the training batches, as the data loader
            yields them.
        loss: the training loss of a model on one such batch, a scalar with a gradient.
        evaluate: the accuracy of a model on the validation data, in percent.
        forward: runs a model on one such batch, so that its modules compute their activations.
            The value that it returns is not used.
        folder: the folder where a search may save its results, to continue from them later.
        track: shows progress over an iterable: ``for x in context.track(items, total)``.
    """

    seed: int = 0
    batches: Callable[[], Iterable[Any]] | None = None
    loss: Callable[[nn.Module, Any], Tensor] | None = None
    evaluate: Callable[[nn.Module], float] | None = None
    forward: Callable[[nn.Module, Any], object] | None = None
    folder: Path | None = None
    track: Callable[[Iterable[Any], int], Iterable[Any]] = _untracked

    def generator(self, seed: int | None = None) -> torch.Generator:
        """Return a generator of random numbers.

        Args:
            seed: the seed of a component; None for the context's own.
        """
        return torch.Generator().manual_seed(self.seed if seed is None else seed)

    def some_batches(self, count: int, requested_by: str) -> Iterator[Any]:
        """Return the first batches of a pass; fewer if the pass is shorter.

        Args:
            count: the number of batches.
            requested_by: the name of the component that needs them, for messages.

        Raises:
            ConfigError: the context has no batches.
            EasyPrunerError: the data set is empty.
        """
        batches = islice(self.needed('batches', requested_by)(), count)
        # Read the first batch now, so that an empty data set raises the error at once.
        for first in batches:
            return iter(self.track(chain([first], batches), count))
        raise EasyPrunerError(
            f'{requested_by} needs batches of training data, but the data set is empty'
        )

    def needed(self, part: str, requested_by: str) -> Any:
        """Return a part that a component requires, such as ``'loss'``.

        Raises:
            ConfigError: the context does not have it.
        """
        value = getattr(self, part)
        if value is None:
            raise ConfigError(
                f'{requested_by} needs {_PARTS[part]}, which this context does not have; '
                f'run it in a stage of a config, or give {part}= to easypruner.slim or Context'
            )
        return value


_PARTS = {
    'batches': 'batches of training data',
    'loss': 'the training loss',
    'evaluate': 'the validation accuracy',
    'forward': 'forward passes on training data',
    'folder': 'a folder for its results',
}
