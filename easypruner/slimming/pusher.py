"""Pusher: a regularizer that pushes in a training loop of one's own."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from types import TracebackType
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from easypruner.base.describe import describe
from easypruner.base.distributed import is_main
from easypruner.errors import ConfigError
from easypruner.graph import Masks
from easypruner.slimming.push_summary import Magnitudes, PushSummary, Rows, measure_rows
from easypruner.strategies import Regularizer
from easypruner.strategies.measures.remains import Remains
from easypruner.strategies.regularizers.push import Push

_SAME = ('regularizer', 'updates', 'every')
"""What must be the same when a training continues."""


class PushWarning(UserWarning):
    """A regularizer cannot bring to zero what must go, or the loop does not use it as announced."""


class Pusher:
    """Pushes channels at each update of an optimizer; :func:`easypruner.regularize` makes it.

    The push enters by itself: before or after ``optimizer.step()``, once per update, with gradient
    accumulation, a GradScaler, clipping and several processes. It ends with :meth:`close`, with the
    ``with`` block of the pusher, or when its masks are cut.

    Args:
        push: what pushes, not yet started.
        optimizer: the optimizer of torch.
        state: the :meth:`state_dict` of an interrupted training; None for a new one.
    """

    def __init__(
        self, push: Push, optimizer: Optimizer, state: Mapping[str, Any] | None = None
    ) -> None:
        self._push = push
        self._before: Rows = {}
        self._now: Rows | None = None
        self._has_ended = False
        push.warn = push.note = _warn
        if state is not None:
            self.load_state_dict(state)
        push.start(optimizer)
        self._before = self._before or self._measured()
        self._end = optimizer.register_step_post_hook(self._after_update)

    @property
    def regularizer(self) -> Regularizer:
        """The regularizer that pushes."""
        return self._push.regularizer

    @property
    def masks(self) -> Masks | None:
        """The masks of the channels that are pushed, True = keep; None without masks."""
        return self._push.masks

    @property
    def strength(self) -> float:
        """The strength of the penalty, as it was given or chosen from the learning rates."""
        return self.regularizer.strength

    @property
    def form(self) -> str:
        """``'gradient'``: pushes before each update; ``'proximal'``: after it."""
        return self._push.form

    @property
    def done(self) -> int:
        """The number of updates that are done."""
        return self._push.done

    @property
    def updates(self) -> int:
        """The number of updates that were announced."""
        return self._push.schedule.updates

    def loss(self, loss: Tensor) -> Tensor:
        """Return the loss with the penalty on the last forward pass.

        A regularizer such as ``ActivationSparsity`` acts on what forward passes compute. It needs
        this call after each forward pass of training, before the loss is divided by the number of
        accumulated batches, scaled, and differentiated. For other regularizers, the loss is
        returned as it is, so a loop can always have the call.
        """
        return self._push.join(loss)

    def summary(self) -> PushSummary:
        """Return how far what must go has come down; ``print()`` shows it.

        After the masks were cut, it is what was measured at the end of the updates, or by
        :meth:`close`.
        """
        now = self._now or self._before if self._push.is_over else self._measured()
        return PushSummary(
            type(self.regularizer).__name__,
            self.form,
            self.strength,
            self.done,
            self.updates,
            self._before,
            now,
        )

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed training needs, as values that ``weights_only=True`` loads."""
        return self._push.state_dict() | {
            'before': {name: asdict(row) for name, row in self._before.items()},
            'regularizer': type(self.regularizer).__name__,
            'updates': self.updates,
            'every': self._push.every,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue an interrupted training, bit for bit as if it had not stopped.

        Weights and optimizer have to be loaded as well, before or after this call.
        """
        own = self.state_dict()
        if not isinstance(state, Mapping) or own.keys() != state.keys():
            raise ConfigError(
                f'the state is {describe(state)}; expected the state_dict() of a pusher with the '
                f'same regularizer, {type(self.regularizer).__name__}'
            )
        if changed := [key for key in _SAME if own[key] != state[key]]:
            raise ConfigError(
                'the state is that of another pusher: '
                + ', '.join(f'{key} was {state[key]!r} and is {own[key]!r}' for key in changed)
                + '; continue with the arguments of the interrupted training'
            )
        self._push.load_state_dict(state)
        self._before = {name: Magnitudes(**row) for name, row in state['before'].items()}

    def close(self) -> None:
        """Stop pushing, and remove all hooks from the optimizer and the network."""
        if not self._push.is_over:
            self._finish()
        self._push.close()
        self._end.remove()

    def __enter__(self) -> Pusher:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # What a failed training has left says nothing.
        self._has_ended = self._has_ended or kind is not None
        self.close()

    def __repr__(self) -> str:
        name = type(self.regularizer).__name__
        return f'Pusher({name}, {self.form}, {self.done} of {self.updates} updates)'

    def _measured(self) -> Rows:
        return measure_rows(self.regularizer, self._push.graph, self.masks)

    def _after_update(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if self._push.is_over:
            return
        if self.done == self.updates:
            self._finish()
        elif self.done == self.updates + 1:
            _warn(
                f'the loop makes more updates than updates={self.updates} of regularize, for which '
                f'{type(self.regularizer).__name__} has its strength and its course; it goes on as '
                'at the end: give the number of calls of optimizer.step(), or call pusher.close()'
            )

    def _finish(self) -> None:
        """Measure what is left, and warn once if the cut will not be free."""
        self._now = self._measured()
        if self._has_ended or not self.done:
            return
        self._has_ended = True
        push, regularizer = self._push, self.regularizer
        if not all(math.isfinite(row.largest) for row in self._now.values()):
            _warn(
                f'{type(regularizer).__name__}: scales or biases of norms are no longer finite, so '
                'the training has diverged; use a lower learning rate, or clip gradients'
            )
            return
        _warn(regularizer.unmet(push.graph, self.masks))
        entries = regularizer.to_zero(push.graph, self.masks)
        if regularizer.loop is not None or self.masks is None or not entries.names:
            return
        remains = Remains.of(push.graph, self.masks, entries.names)
        if remains.scales:
            parts = (f'after {type(regularizer).__name__}, {remains.text()}', push.advice)
            _warn('; '.join(filter(None, (parts[0], 'the cut will change the outputs', parts[1]))))


def _warn(text: str) -> None:
    """Give a warning of Python, in one of the processes of a training."""
    if text and is_main():
        warnings.warn(text, PushWarning, stacklevel=3)
