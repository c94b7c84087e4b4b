"""The training of slim(): a regularizer pushes while a function of the caller trains."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.optim import SGD

from easypruner.errors import ConfigError, MasksMissingError
from easypruner.graph import ChannelGraph, Masks
from easypruner.plugins.registry import REGULARIZERS
from easypruner.plugins.use import ensure_loaded
from easypruner.slimming.checks import check_function
from easypruner.slimming.push_summary import PushSummary
from easypruner.slimming.pusher import Pusher
from easypruner.slimming.regularizing import build_regularizer, regularize
from easypruner.strategies import Progress, Regularizer

Train = Callable[[nn.Module, Callable[..., Pusher]], object]
"""A function that trains a network, and calls the second argument with its optimizer."""

_OWNER = 'slim'


@dataclass(frozen=True)
class Training:
    """A training with a regularizer.

    Attributes:
        regularizer: the regularizer: a name, a dict with arguments, or an object.
        train: trains a network.
    """

    regularizer: str | Mapping[str, Any] | Regularizer
    train: Train

    @classmethod
    def of(cls, regularizer: Any, train: Any) -> Training | None:
        """Return the training for arguments of slim(); None if there is none.

        Raises:
            ConfigError: only one of the arguments is given, or one has a wrong value.
        """
        check_function(train, 'train', _OWNER)
        if regularizer is None and train is None:
            return None
        if train is None:
            raise ConfigError(
                f'regularizer of {_OWNER} pushes during a training, so it needs train=, a function '
                'train(model, regularize) that makes an optimizer, calls regularize(optimizer, '
                'updates=..., reach=5) and trains'
            )
        if regularizer is None:
            raise ConfigError(
                f"train of {_OWNER} needs a regularizer, such as regularizer='MaskSparsity'; to "
                'train without one, train the network before or after this call'
            )
        training = cls(regularizer, train)
        training._example()
        return training

    def _example(self) -> Regularizer:
        """Return the regularizer, with some strength if the training will choose it."""
        ensure_loaded()
        given = self.regularizer
        config = {'type': given} if isinstance(given, str) else given
        if isinstance(config, Mapping):
            cls = REGULARIZERS.class_of(config)
            if cls is not None and 'strength' in inspect.signature(cls).parameters:
                config = {'strength': 1.0, **config}
        return build_regularizer(config, {}, _OWNER)

    def needs_masks(self, graph: ChannelGraph) -> bool:
        """Return whether the regularizer pushes only what masks remove."""
        regularizer = self._example()
        parameters = [p for p in graph.model.parameters() if p.requires_grad]
        with _without_gradients(graph.model):
            try:
                regularizer.pushed_names(graph, None)
                with regularizer.watching(graph, None):
                    pass
                progress = Progress(0, 1, lr=1.0, optimizer=SGD(parameters, lr=1.0))
                regularizer.add_gradient(graph, None, progress)
            except MasksMissingError:
                return True
        return False

    def run(self, graph: ChannelGraph, masks: Masks | None) -> PushSummary:
        """Train the network of a graph; return how far the regularizer has come.

        Raises:
            ConfigError: the function has not called ``regularize``, or has not trained.
        """
        pushers: list[Pusher] = []

        def bound(optimizer: Any, **options: Any) -> Pusher:
            given = {'masks': masks, **options}
            pusher = regularize(graph.model, optimizer, graph, self.regularizer, **given)
            pushers.append(pusher)
            return pusher

        try:
            self.train(graph.model, bound)
        finally:
            for pusher in pushers:
                pusher.close()
        if not any(pusher.done for pusher in pushers):
            missing = 'call optimizer.step()' if pushers else 'call regularize(optimizer, ...)'
            raise ConfigError(
                f'train of {_OWNER} did not {missing}, so nothing was pushed; expected '
                'train(model, regularize) that makes an optimizer for model.parameters(), calls '
                'regularize with it, and trains this model'
            )
        return pushers[-1].summary()


@contextlib.contextmanager
def _without_gradients(model: nn.Module) -> Iterator[None]:
    """Restore the gradients of a model after a block."""
    gradients = [(parameter, parameter.grad) for parameter in model.parameters()]
    for parameter, _ in gradients:
        parameter.grad = None
    try:
        yield
    finally:
        for parameter, gradient in gradients:
            parameter.grad = gradient
