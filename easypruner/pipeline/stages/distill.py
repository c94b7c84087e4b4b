"""The stage Distill: training with the unpruned network as a teacher."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, replace
from types import MappingProxyType
from typing import Any, TypeVar

from mmengine.hooks import Hook
from mmengine.registry import MODELS
from torch import nn

from easypruner.base.checks import check_path
from easypruner.engine.checkpoint import load_weights, read_weights
from easypruner.engine.config import model_settings
from easypruner.engine.distillation import (
    DistillationHook,
    Hints,
    Soft,
    heard_paths,
    returned,
)
from easypruner.errors import ConfigError, nearest
from easypruner.pipeline.stages.train import Train
from easypruner.strategies import Regularizer
from easypruner.strategies.stages.forecast import Forecast
from easypruner.strategies.stages.state import PruningState

_Part = TypeVar('_Part', Soft, Hints)


class Distill(Train):
    """Trains the network where it stands; the unpruned network teaches it.

    Args:
        name: of the stage.
        epochs: to train for; by default the config's ``train_cfg.max_epochs``.
        regularizer: pushes channels to zero.
        row: name of the row that the result gets in the final table; None for no row.
        optim_wrapper: merged over the config's.
        param_scheduler: instead of the config's.
        ema: as of Train.
        regularize_every: as of Train.
        soft: what the logits are taught by, ``dict(weight=1.0, temperature=4.0, logits=None)``;
            see :class:`easypruner.engine.distillation.Soft`. None leaves it out.
        hints: what inner layers are taught by, ``dict(layers=[paths of modules], weight=1.0)``;
            see :class:`easypruner.engine.distillation.Hints`. None leaves it out.
        teacher: checkpoint of the original architecture; by default the run's own weights before
            anything pushed them towards a cut or set them to zero, or, where nothing was trained
            by then, right before the first cut. The plan names the stage.
    """

    def __init__(
        self,
        name: str = 'distill',
        epochs: int | None = None,
        regularizer: Regularizer | None = None,
        row: str | None = None,
        optim_wrapper: Mapping[str, Any] | None = None,
        param_scheduler: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
        ema: float | None = None,
        soft: Mapping[str, Any] | None = MappingProxyType({}),
        hints: Mapping[str, Any] | None = None,
        teacher: str | None = None,
        regularize_every: int = 1,
    ) -> None:
        super().__init__(
            name,
            epochs,
            regularizer,
            row,
            optim_wrapper,
            param_scheduler,
            ema,
            regularize_every,
        )
        self.soft = _part(Soft, soft, 'soft')
        self.hints = _part(Hints, hints, 'hints')
        if self.soft is None and self.hints is None:
            raise ConfigError('Distill has neither soft nor hints: there is nothing to teach')
        self.teacher = None if teacher is None else check_path(teacher, 'teacher', 'Distill')

    def check(self) -> None:
        if self.teacher is not None:
            read_weights(self.teacher)

    def forecast(self, before: Forecast) -> Forecast:
        before.check_not_fixed()
        model = before.graph.model
        paths = heard_paths(model, self.soft, self.hints)
        outputs = returned(model, before.graph.example_inputs, paths)
        if self.hints is not None:
            self.hints.check(outputs)
        if self.teacher is not None:
            load_weights(copy.deepcopy(model), self.teacher)
        elif not before.cut:
            raise ConfigError(
                'Distill is taught by the network before the cut, but nothing has been cut; put a '
                "Prune stage before it, or name a checkpoint, teacher='...'"
            )
        after = super().forecast(before)
        return replace(after, step=replace(after.step, taught=self.teacher is None))

    def hooks(self, state: PruningState) -> list[Hook]:
        def teacher() -> nn.Module:
            model: nn.Module = MODELS.build(model_settings(state.config))
            load_weights(model, self.teacher or state.unpruned or '')
            return model

        return [*super().hooks(state), DistillationHook(teacher, self.soft, self.hints)]

    def plan(self, state: PruningState) -> str:
        by = self.teacher or 'the unpruned network'
        return f'{super().plan(state)}, taught by {by}'


def _part(kind: type[_Part], values: Mapping[str, Any] | None, argument: str) -> _Part | None:
    if values is None:
        return None
    if not isinstance(values, Mapping):
        raise ConfigError(f'{argument}={values!r} of Distill; expected a dict of its arguments')
    known = [entry.name for entry in fields(kind)]
    for name in values:
        if name not in known:
            raise ConfigError(f'{argument} of Distill has {name!r}; {nearest(str(name), known)}')
    for entry in fields(kind):
        if entry.default is MISSING and entry.name not in values:
            raise ConfigError(f'{argument} of Distill needs {entry.name!r}, which is missing')
    return kind(**values)
