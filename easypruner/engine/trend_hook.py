"""TrendHook: says during a sparsity stage if no score will come below the threshold after it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mmengine.hooks import Hook
from torch import nn

from easypruner.base.modules import unwrapped
from easypruner.graph import ChannelGraph
from easypruner.strategies.stages.forecast import Margin

_TREND = 'trend'


class TrendHook(Hook):
    """Measures after half and three quarters of a stage how far scores are above a threshold.

    Args:
        margin: a function that returns how far the lowest score of a network is above the
            threshold of the next selection; None if that is not known.
        trace: a function that makes the channel graph of the runner's model.
        warn: a function that gets a warning if the trend does not lead below the threshold.
    """

    # Runs before the hook that saves the checkpoint.
    priority = 'LOW'

    def __init__(
        self,
        margin: Margin,
        trace: Callable[[nn.Module], ChannelGraph],
        warn: Callable[[str], object],
    ) -> None:
        self._margin = margin
        self._trace = trace
        self._warn = warn
        self._found: dict[int, float] = {}

    def after_load_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Restore what an interrupted stage has measured."""
        self._found = dict(checkpoint.get(_TREND, {}))

    def before_train(self, runner: Any) -> None:
        """Repeat the warning of an interrupted stage."""
        self._judge(runner.max_epochs)

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Save what was measured."""
        checkpoint[_TREND] = self._found

    def after_train_epoch(self, runner: Any) -> None:
        """Measure, and warn after the second time."""
        done, epochs = runner.epoch + 1, runner.max_epochs
        if done not in _looks(epochs):
            return
        margin = self._margin(self._trace(unwrapped(runner.model)))
        if margin is not None:
            self._found[done] = margin
            self._judge(epochs)

    def _judge(self, epochs: int) -> None:
        looks = _looks(epochs)
        if len(looks) < 2 or any(look not in self._found for look in looks):
            return
        (first, second), last = looks, epochs
        before, after = self._found[first], self._found[second]
        expected = after + (after - before) * (last - second) / (second - first)
        if after <= 0 or expected <= 0:
            return
        self._warn(
            f'by the trend of this stage, the masks after it will remove nothing: the lowest score '
            f'was {before:.2g} above the threshold after epoch {first}, {after:.2g} after epoch '
            f'{second}, and is expected {expected:.2g} above it after epoch {last}; use a higher '
            'strength, or more epochs'
        )


def _looks(epochs: int) -> tuple[int, ...]:
    """Return the epochs after which scores are measured; none if a stage is too short."""
    looks = (epochs // 2, epochs * 3 // 4)
    return looks if 0 < looks[0] < looks[1] < epochs else ()
