"""The stage Distill: trains with the unpruned network as a teacher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, replace
from types import MappingProxyType
from typing import Any, TypeVar

from mmengine.hooks import Hook
from mmengine.registry import MODELS
from torch import nn

from easypruner.base.checks import refuse
from easypruner.base.modules import copy_of
from easypruner.engine.config import model_settings
from easypruner.engine.distillation import DistillationHook, Hints, Soft, heard_paths, returned
from easypruner.engine.pretrained import load_weights, weights_source
from easypruner.errors import ConfigError, nearest
from easypruner.pipeline.stages.train import Train
from easypruner.strategies import Regularizer
from easypruner.strategies.stages.forecast import Forecast
from easypruner.strategies.stages.state import PruningState

_Part = TypeVar('_Part', Soft, Hints)


class Distill(Train):
    """Trains the pruned network with the unpruned network as a teacher.

    ``soft`` adds the divergence between the softened class probabilities of both networks to the
    loss (Hinton et al., 2015, arXiv 1503.02531). ``hints`` adds the distance between attention maps
    of inner layers: the mean square of their activations over the channels, so that the widths may
    differ (Zagoruyko and Komodakis, 2017, arXiv 1612.03928).

    Use when:
        Much was cut, or little data is available: the teacher's outputs say more than labels.

    Fails when:
        Training time is tight, because the teacher runs on every batch as well. ``hints`` need
        layers whose outputs have the same height and width in both networks.

    Values:
        The default ``soft``, with a temperature of 4, for classification. Otherwise the values of a
        ``Train`` stage after a cut.

    Args:
        soft: the loss on logits, ``dict(weight=1.0, temperature=4.0, logits=None)``; see
            :class:`easypruner.engine.distillation.Soft`. None disables it.
        hints: the loss on inner layers, ``dict(layers=[paths of modules], weight=1.0)``; see
            :class:`easypruner.engine.distillation.Hints`. None disables it.
        teacher: a checkpoint of the original network, as a path, or as a dict with the fields that
            ``load_from`` takes. By default, the teacher has the weights of
            this run before any stage pushed them towards a cut or set them to zero; if nothing was
            trained before that, the weights right before the first cut. The plan names the stage.
    """

    def __init__(
        self,
        name: str = 'distill',
        epochs: int | str | None = None,
        regularizer: Regularizer | None = None,
        row: str | None = None,
        optim_wrapper: Mapping[str, Any] | None = None,
        param_scheduler: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
        ema: float | None = None,
        soft: Mapping[str, Any] | None = MappingProxyType({}),
        hints: Mapping[str, Any] | None = None,
        teacher: str | Mapping[str, Any] | None = None,
        regularize_every: int = 1,
        lr: str | None = None,
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
            lr,
        )
        self.soft = _part(Soft, soft, 'soft')
        self.hints = _part(Hints, hints, 'hints')
        if self.soft is None and self.hints is None:
            raise ConfigError(
                'soft=None and hints=None of Distill; expected a dict for at least one of them'
            )
        self.teacher = None if teacher is None else weights_source(teacher, 'Distill', 'teacher')

    def check(self) -> None:
        if self.teacher is not None:
            self.teacher.read()

    def forecast(self, before: Forecast) -> Forecast:
        before.check_not_fixed()
        model = before.graph.model
        paths = heard_paths(model, self.soft, self.hints)
        outputs = returned(model, before.graph.example_inputs, paths)
        if self.hints is not None:
            self.hints.check(outputs)
        if self.teacher is not None:
            load_weights(copy_of(model), self.teacher)
        elif not before.cut:
            raise ConfigError(
                'the teacher of Distill is the network before the cut, but nothing has been cut; '
                "put a Prune stage before it, or give a checkpoint, teacher='...'"
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
        teacher = self.teacher.checkpoint if self.teacher else 'the unpruned network'
        return f'{super().plan(state)}, teacher: {teacher}'


def _part(kind: type[_Part], values: Mapping[str, Any] | None, argument: str) -> _Part | None:
    if values is None:
        return None
    if not isinstance(values, Mapping):
        refuse(values, argument, 'Distill', 'a dict of its arguments, or None')
    known = [entry.name for entry in fields(kind)]
    for name in values:
        if name not in known:
            raise ConfigError(
                f'{argument} of Distill does not take {name!r}; {nearest(str(name), known)}'
            )
    for entry in fields(kind):
        if entry.default is MISSING and entry.name not in values:
            raise ConfigError(f'{argument} of Distill needs {entry.name!r}, which is missing')
    return kind(**values)
