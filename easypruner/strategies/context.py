"""Context: what a strategy may use besides the channel graph."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor, nn

from easypruner.errors import ConfigError, EasyPrunerError

_Item = TypeVar('_Item')


def _untracked(items: Iterable[_Item], total: int) -> Iterable[_Item]:
    return items


@dataclass(frozen=True)
class Context:
    """What a strategy may use besides the channel graph. Absent parts are None.

    Attributes:
        seed: for every random choice.
        batches: opens one pass over training batches, as the data loader yields them.
        loss: the training loss (scalar, differentiable) of a model on one such batch.
        evaluate: the accuracy of a model on the validation data, in percent.
        forward: runs a model on one such batch, for what its modules compute; what it returns
            does not matter.
        folder: where a search may keep what it has found so far, to go on from there.
        track: passes items on and shows how far it is: ``for x in context.track(items, total)``.
    """

    seed: int = 0
    batches: Callable[[], Iterable[Any]] | None = None
    loss: Callable[[nn.Module, Any], Tensor] | None = None
    evaluate: Callable[[nn.Module], float] | None = None
    forward: Callable[[nn.Module, Any], object] | None = None
    folder: Path | None = None
    track: Callable[[Iterable[Any], int], Iterable[Any]] = _untracked

    def some_batches(self, count: int, requested_by: str) -> Iterator[Any]:
        """Return the first batches of a pass; fewer if there are fewer.

        Args:
            count: how many.
            requested_by: the name of the component that needs them, for messages.

        Raises:
            ConfigError: there are no batches here.
            EasyPrunerError: the data set is empty.
        """
        batches = iter(islice(self.needed('batches', requested_by)(), count))
        try:
            first = next(batches)
        except StopIteration:
            raise EasyPrunerError(
                f'{requested_by} looks at batches of training data, but the data set is empty'
            ) from None
        return self._tracked(first, batches, count)

    def _tracked(self, first: Any, others: Iterator[Any], count: int) -> Iterator[Any]:
        def every() -> Iterator[Any]:
            yield first
            yield from others

        yield from self.track(every(), count)

    def needed(self, part: str, requested_by: str) -> Any:
        """Return a part that a component cannot do without, such as ``'loss'``.

        Raises:
            ConfigError: it is absent.
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
    'folder': 'a folder for what it finds',
}
