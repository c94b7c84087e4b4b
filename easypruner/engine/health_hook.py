"""HealthHook: a training stage stops when its losses or weights are no longer finite numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import BaseLoop
from torch import Tensor, nn

from easypruner.base.distributed import gathered
from easypruner.base.finite import not_finite
from easypruner.base.modules import unwrapped
from easypruner.engine.bad_batch import describe_bad_batch
from easypruner.engine.health import LOSS, Found, Health
from easypruner.errors import EasyPrunerError
from easypruner.strategies.regularizers.push import GRADIENT

_EVERY = 50
"""The number of iterations between two looks at what was noted; each look waits for the device."""
_SHOWN = 3
_FIRST_LOSS = 'first_loss'


class HealthHook(Hook):
    """Stops a training stage whose numbers are no longer finite, before they are saved.

    Losses are noted at every iteration and looked at now and then and at the end of an epoch;
    weights are looked at before the first and after each epoch. A loss that is not finite is no
    error if the update was skipped, so that the weights still are.

    Args:
        health: what collects the numbers.
        stage: the name of the stage.
        regularizer: the regularizer of the stage, if it has one.
    """

    # Runs before the hooks that save checkpoints and that average over processes.
    priority = 'ABOVE_NORMAL'

    def __init__(self, health: Health, stage: str, regularizer: object | None) -> None:
        self.health = health
        self._stage = stage
        self._regularizer = '' if regularizer is None else type(regularizer).__name__
        self._excused: frozenset[str] = frozenset()

    def after_load_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Restore the first loss of an interrupted stage."""
        self.health.first_loss = checkpoint.get(_FIRST_LOSS)

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Save the first loss with the weights."""
        checkpoint[_FIRST_LOSS] = self.health.first_loss

    def before_train(self, runner: Any) -> None:
        """Check the weights that the stage starts with."""
        model = unwrapped(runner.model)
        bad = not_finite(model)
        trained = {name for name, p in model.named_parameters() if p.requires_grad}
        if wrong := [name for name in bad if name in trained]:
            raise EasyPrunerError(
                f'stage {self._stage!r} starts with weights that are not finite: {listed(wrong)}; '
                'the weights that the run starts with (load_from) are damaged, or an earlier stage '
                'has made them so'
            )
        # What is not trained may be so on purpose.
        self._excused = frozenset(bad)

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Note the losses; look at the notes now and then."""
        loss = outputs.get(LOSS) if isinstance(outputs, Mapping) else None
        if isinstance(loss, Tensor):
            self.health.note(runner.iter, LOSS, loss)
        if (batch_idx + 1) % _EVERY == 0:
            self._look(runner, epoch_ends=False)

    def after_train_epoch(self, runner: Any) -> None:
        """Look at the notes and at the weights."""
        self._look(runner, epoch_ends=True)

    def before_leaving_epoch(self, runner: Any) -> None:
        """Look at the notes and at the weights before a checkpoint inside of an epoch."""
        self._look(runner, epoch_ends=True)

    def _look(self, runner: Any, epoch_ends: bool) -> None:
        found = self.health.look()
        model = unwrapped(runner.model)
        bad = self._bad_weights(model) if epoch_ends or found is not None else []
        stops = bool(bad) or (found is not None and found.lasting)
        # All processes stop together, with the message of the first that has found something.
        texts = gathered(self._message(runner, found, bad) if stops else '')
        for text in filter(None, texts):
            raise EasyPrunerError(text)

    def _bad_weights(self, model: nn.Module) -> list[str]:
        return [name for name in not_finite(model) if name not in self._excused]

    def _message(self, runner: Any, found: Found | None, bad: Sequence[str]) -> str:
        """Return where and what was found, who made it, and what to do."""
        length = len(runner.train_dataloader)
        number = None if found is None else found.iteration % length
        where = position(self._stage, runner, number)
        weights = f' (weights that are not finite: {listed(bad)})' if bad else ''
        if found is None:
            made = f'its updates have made weights NaN or infinite{weights}'
            return f'{where}: {made}; {self._advice(runner)}'
        if found.source not in (LOSS, GRADIENT):
            return (
                f'{where}: {found.source} is {found.value}{weights}; correct this plugin, or use '
                'another regularizer'
            )
        data = describe_bad_batch(runner, number or 0) if found.source == LOSS else ''
        if data:
            return f'{where}: the loss is {found.value}, because of the data: {data}{weights}'
        what = 'the loss is' if found.source == LOSS else 'the loss is finite, but its gradient is'
        return f'{where}: {what} {found.value}{weights}; {self._advice(runner)}'

    def _advice(self, runner: Any) -> str:
        rate = runner.optim_wrapper.optimizer.param_groups[0]['lr']
        strength = f', a lower strength of {self._regularizer}' if self._regularizer else ''
        return (
            f'the training has diverged: use a lower learning rate (it is {rate:.2g} now), a '
            f'warm-up, or optim_wrapper=dict(clip_grad=dict(max_norm=1.0)){strength}'
        )


def position(stage: str, runner: Any, number: int | None = -1) -> str:
    """Return where a training stage is, in words.

    Args:
        stage: the name of the stage.
        runner: the runner of the stage.
        number: the number of an iteration in the current epoch, from 0; by default the current one,
            None for the end of the epoch.
    """
    name, epochs = f'stage {stage!r}', runner.max_epochs
    if not isinstance(runner._train_loop, BaseLoop):
        return name
    if runner.epoch >= epochs:
        return f'{name}, after epoch {epochs} of {epochs}'
    where = f'{name}, epoch {runner.epoch + 1} of {epochs}'
    if number is None:
        return where
    length = len(runner.train_dataloader)
    number = runner.iter % length if number < 0 else number
    return f'{where}, iteration {number + 1} of {length}'


def listed(names: Sequence[str]) -> str:
    """Return the first names, and how many more there are."""
    more = f' and {len(names) - _SHOWN} more' if len(names) > _SHOWN else ''
    return ', '.join(map(repr, names[:_SHOWN])) + more
