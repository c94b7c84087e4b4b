"""Regularizer: pushes channels towards zero while training."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from easypruner.base.checks import check_number
from easypruner.errors import ConfigError
from easypruner.graph import ChannelGraph
from easypruner.graph.coupling.patterns import first_fitting
from easypruner.graph.masks import Masks
from easypruner.strategies.regularizers.schedule import Progress, Schedule, ramp_of
from easypruner.strategies.strategy import Strategy


class Regularizer(Strategy):
    """Pushes channels towards zero while training.

    Implement one of three. :meth:`penalty` is a function of the parameters; its gradient is added
    once per optimizer update. :meth:`add_gradient` is for rules that are not a penalty, or for
    speed. :meth:`forward_penalty` is a function of what a forward pass computes, which
    :meth:`watching` lets it see, and joins the loss.

    Args:
        strength: lambda, the factor of the penalty; or ``dict(reach=R)``, which picks the strength
            so that the penalty alone can move a parameter by R over the stage's schedule.
        strength_schedule: what the strength is multiplied with over the stage: a name of
            :data:`easypruner.strategies.regularizers.schedule.RAMPS`, or ``dict(warmup=0.2)``.
        group_strengths: path, glob or name of groups -> what the strength is multiplied with
            there; the first that fits counts.
    """

    def __init__(
        self,
        strength: float | Mapping[str, float],
        strength_schedule: str | Mapping[str, float] = 'constant',
        group_strengths: Mapping[str, float] | None = None,
    ) -> None:
        self._asked_strength = strength
        self.strength = strength if isinstance(strength, int | float) else 0.0
        if isinstance(strength, Mapping) and set(strength) != {'reach'}:
            raise ConfigError(
                f'strength={dict(strength)!r} of {type(self).__name__} is not understood; '
                'expected a number or dict(reach=number)'
            )
        value = strength['reach'] if isinstance(strength, Mapping) else strength
        check_number(value, 'strength', type(self).__name__, least=0)
        self.ramp = ramp_of(strength_schedule, type(self).__name__)
        self.group_strengths = dict(group_strengths or {})
        self._fitted: frozenset[str] = frozenset()
        for pattern, factor in self.group_strengths.items():
            check_number(factor, f'group_strengths[{pattern!r}]', type(self).__name__, least=0)

    def schedule(self, schedule: Schedule) -> None:
        """Fix :attr:`strength` for a stage's schedule. Called once before training."""
        if isinstance(self._asked_strength, Mapping):
            if not self.pushes_parameters:
                raise ConfigError(
                    f'{type(self).__name__} acts on activations, so it has no reach: it cannot '
                    'move a parameter by a given distance; give its strength as a number'
                )
            per_strength = schedule.reach_under(self.ramp)
            if per_strength <= 0:
                raise ConfigError(
                    f'{type(self).__name__} asks for a reach of {self._asked_strength["reach"]}, '
                    'but the learning rates of its stage sum to 0'
                )
            self.strength = self._asked_strength['reach'] / per_strength

    @property
    def pushes_parameters(self) -> bool:
        """Whether it acts on parameters themselves, so that its reach says how far they move."""
        own, base = type(self), Regularizer
        alone = own.penalty is base.penalty and own.add_gradient is base.add_gradient
        return not (self.watches and alone)

    @property
    def watches(self) -> bool:
        """Whether it has a penalty on what forward passes compute."""
        return type(self).forward_penalty is not Regularizer.forward_penalty

    def strength_at(self, progress: Progress) -> float:
        """Return the strength at this point of the stage, without groups' own factors."""
        return self.strength * float(self.ramp(progress.share))

    def group_factors(self, graph: ChannelGraph) -> dict[str, float]:
        """Return group -> what the strength is multiplied with there, 1 unless asked otherwise.

        What has fitted a group once, as before a run starts, may come to fit none: a group that
        was cut to a single channel is none any more.

        Raises:
            ConfigError: a pattern of :attr:`group_strengths` that fits no group.
        """
        what = f'group_strengths of {type(self).__name__}'
        found = first_fitting(self.group_strengths, graph.groups, what, self._fitted)
        self._fitted = frozenset(self.group_strengths)
        return {name: found.get(name, 1.0) for name in graph.groups}

    def needed_masks(self, graph: ChannelGraph, masks: Masks | None) -> Masks:
        """Return the masks, for a regularizer that pushes what they remove.

        Raises:
            ConfigError: there are none.
            MaskError: a mask of no group of this graph, or not of its group's shape.
        """
        if masks is None:
            raise ConfigError(
                f'{type(self).__name__} pushes the channels that masks remove, but there are no '
                'masks yet; put a SelectMask or LoadMask stage before this Train stage'
            )
        # Here a group may lose all its units: before a run starts, no more is known.
        Masks({name: mask for name, mask in masks.items() if bool(mask.any())}).check(graph)
        return masks

    def reach(self, schedule: Schedule) -> float:
        """Return how far the penalty alone can move a parameter over ``schedule``."""
        return self.strength * schedule.reach_under(self.ramp)

    def largest(self, graph: ChannelGraph, masks: Masks | None) -> float:
        """Return the largest magnitude that must come to zero; 0 where nothing need.

        Where groups have factors of their own, each counts relative to its group's.

        Raises:
            EasyPrunerError: what is to be pushed is not there, or is not a number.
        """
        return 0.0

    def needed_reach(self, graph: ChannelGraph, masks: Masks | None) -> float:
        """Return the reach under which the channels will not come down; 0 where none need.

        By default that is twice :meth:`largest`: the loss pulls the other way.

        Raises:
            EasyPrunerError: what is to be pushed is not there, or is not a number.
        """
        return 2 * self.largest(graph, masks)

    def penalty(self, graph: ChannelGraph, masks: Masks | None) -> Tensor:
        """Return the penalty at full :attr:`strength` as a scalar that has a gradient."""
        raise NotImplementedError(
            f'{type(self).__name__} implements neither penalty() nor add_gradient()'
        )

    @contextlib.contextmanager
    def watching(self, graph: ChannelGraph, masks: Masks | None) -> Iterator[None]:
        """Watch the forward passes of the block, for :meth:`forward_penalty`.

        By default nothing is watched. What is registered here, such as forward hooks, has to be
        gone when the block ends.
        """
        yield

    def forward_penalty(self, progress: Progress) -> Tensor | None:
        """Return a penalty on what the last forward pass computed; None for none.

        Called within :meth:`watching`, after a forward pass of training and before its backward
        pass. It is a scalar at the strength of the moment, and has a gradient.
        """
        return None

    def joined(self, loss: Tensor, progress: Progress, times: float = 1.0) -> Tensor:
        """Return the loss of a forward pass, and the penalty on what that computed.

        Args:
            loss: scalar.
            progress: where training stands.
            times: how many updates the penalty stands for; with 0 it is let go.
        """
        penalty = self.forward_penalty(progress)
        return loss if penalty is None or not times else loss + times * penalty.to(loss)

    @torch.no_grad()
    def add_gradient(self, graph: ChannelGraph, masks: Masks | None, progress: Progress) -> None:
        """Add the penalty's gradient to ``.grad`` in place; called once per optimizer update."""
        if not self.pushes_parameters:
            return
        parameters = [p for p in graph.model.parameters() if p.requires_grad]
        with torch.enable_grad():
            penalty = self.penalty(graph, masks)
            gradients = torch.autograd.grad(penalty, parameters, allow_unused=True)
        factor = float(self.ramp(progress.share))
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if gradient is None:
                continue
            if progress.grad_scale is not None:
                gradient = gradient * progress.grad_scale
            if parameter.grad is None:
                parameter.grad = gradient * factor
            else:
                parameter.grad.add_(gradient, alpha=factor)

    @classmethod
    def example(cls, graph: ChannelGraph, folder: Path) -> Mapping[str, Any]:
        return {'strength': 1e-3}
