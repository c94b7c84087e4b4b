"""Regularizer: pushes channels towards zero during training."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import ClassVar

import torch
from torch import Tensor

from easypruner.base.checks import check_number
from easypruner.errors import ConfigError
from easypruner.graph import ChannelGraph, Masks
from easypruner.graph.coupling.patterns import first_fitting
from easypruner.strategies.regularizers.schedule import Progress, Schedule, ramp_of
from easypruner.strategies.strategy import Strategy


class Regularizer(Strategy):
    """Pushes channels towards zero during training.

    A subclass implements one of three methods. :meth:`penalty` is a function of the parameters;
    its gradient is added once per optimizer update. :meth:`add_gradient` is for rules that are not
    a penalty, or for speed. :meth:`forward_penalty` is a function of the values that a forward
    pass computes. :meth:`watching` collects these values, and the penalty is added to the loss.

    Args:
        strength: the factor λ of the penalty. ``dict(reach=R)`` chooses the strength with which
            the penalty alone can move a parameter by R over the stage's schedule.
        strength_schedule: the course of the strength over the stage: ``'constant'``;
            ``'linear'`` or ``'cosine'``, from 0 to 1; ``'warmup'``, over the first tenth; or
            ``dict(warmup=share)``.
        group_strengths: path, glob or name of groups -> factor of the strength there; the first
            pattern that matches a group is used.
    """

    example_arguments: ClassVar = {'strength': 1e-3}

    def __init__(
        self,
        strength: float | Mapping[str, float],
        strength_schedule: str | Mapping[str, float] = 'constant',
        group_strengths: Mapping[str, float] | None = None,
    ) -> None:
        self._requested_strength = strength
        self.strength = strength if isinstance(strength, int | float) else 0.0
        if isinstance(strength, Mapping) and set(strength) != {'reach'}:
            raise ConfigError(
                f'strength={dict(strength)!r} of {type(self).__name__}; '
                'expected a number or dict(reach=number)'
            )
        value = strength['reach'] if isinstance(strength, Mapping) else strength
        check_number(value, 'strength', type(self).__name__, least=0)
        self.ramp = ramp_of(strength_schedule, type(self).__name__)
        self.group_strengths = dict(group_strengths or {})
        self._matched: frozenset[str] = frozenset()
        for pattern, factor in self.group_strengths.items():
            check_number(factor, f'group_strengths[{pattern!r}]', type(self).__name__, least=0)

    def schedule(self, schedule: Schedule) -> None:
        """Set :attr:`strength` for a stage's schedule. It is called once before training."""
        if isinstance(self._requested_strength, Mapping):
            if not self.pushes_parameters:
                raise ConfigError(
                    f'{type(self).__name__} acts on activations, so it does not have a reach: it '
                    'cannot move a parameter by a given distance; give its strength as a number'
                )
            per_strength = schedule.reach_under(self.ramp)
            if per_strength <= 0:
                raise ConfigError(
                    f'strength={dict(self._requested_strength)!r} of {type(self).__name__} cannot '
                    'be met, because the learning rates of its stage sum to 0; raise the learning '
                    'rate'
                )
            self.strength = self._requested_strength['reach'] / per_strength

    @property
    def pushes_parameters(self) -> bool:
        """Whether it acts on parameters directly, so that it has a reach."""
        own, base = type(self), Regularizer
        alone = own.penalty is base.penalty and own.add_gradient is base.add_gradient
        return not (self.watches and alone)

    @property
    def watches(self) -> bool:
        """Whether it has a penalty on the values that forward passes compute."""
        return type(self).forward_penalty is not Regularizer.forward_penalty

    def strength_at(self, progress: Progress) -> float:
        """Return the strength at this point of the stage, without the factors of groups."""
        return self.strength * float(self.ramp(progress.share))

    def group_factors(self, graph: ChannelGraph) -> dict[str, float]:
        """Return group -> factor of the strength, by default 1.

        A pattern that matched before a cut may match nothing later, because a group cut to one
        channel is no longer prunable.

        Raises:
            ConfigError: a pattern of :attr:`group_strengths` has never matched a group.
        """
        argument = f'group_strengths of {type(self).__name__}'
        found = first_fitting(self.group_strengths, graph.groups, argument, self._matched)
        self._matched = frozenset(self.group_strengths)
        return {name: found.get(name, 1.0) for name in graph.groups}

    def needed_masks(self, graph: ChannelGraph, masks: Masks | None) -> Masks:
        """Return the masks, for a regularizer that pushes the channels that they remove.

        Raises:
            ConfigError: there are no masks.
            MaskError: a mask does not belong to a group of this graph, or has another shape.
        """
        if masks is None:
            raise ConfigError(
                f'{type(self).__name__} pushes the channels that masks remove, but there are no '
                'masks yet; put a SelectMask or LoadMask stage before this Train stage'
            )
        # Here a mask may remove all units: before a run starts, the worst case is assumed.
        Masks({name: mask for name, mask in masks.items() if bool(mask.any())}).check(graph)
        return masks

    def reach(self, schedule: Schedule) -> float:
        """Return how far the penalty alone can move a parameter over ``schedule``."""
        return self.strength * schedule.reach_under(self.ramp)

    def largest(self, graph: ChannelGraph, masks: Masks | None) -> float:
        """Return the largest magnitude that must come to zero; 0 if none must.

        A magnitude is divided by its group's factor of the strength.

        Raises:
            EasyPrunerError: there is nothing to push, or a parameter has NaN entries.
        """
        return 0.0

    def needed_reach(self, graph: ChannelGraph, masks: Masks | None) -> float:
        """Return the smallest reach that can bring the channels to zero; 0 if none must.

        By default that is twice :meth:`largest`, because the loss pulls in the other direction.

        Raises:
            EasyPrunerError: there is nothing to push, or a parameter has NaN entries.
        """
        return 2 * self.largest(graph, masks)

    def penalty(self, graph: ChannelGraph, masks: Masks | None) -> Tensor:
        """Return the penalty at full :attr:`strength` as a scalar with a gradient."""
        raise NotImplementedError(
            f'{type(self).__name__} implements neither penalty() nor add_gradient()'
        )

    @contextlib.contextmanager
    def watching(self, graph: ChannelGraph, masks: Masks | None) -> Iterator[None]:
        """Watch the forward passes of the block, for :meth:`forward_penalty`.

        By default nothing is watched. An override must remove its forward hooks when the block
        ends.
        """
        yield

    def forward_penalty(self, progress: Progress) -> Tensor | None:
        """Return a penalty on the values of the last forward pass; None for no penalty.

        It is called within :meth:`watching`, after a forward pass of training and before its
        backward pass. The penalty is a scalar with a gradient, at the strength of this point of
        the stage.
        """
        return None

    def joined(self, loss: Tensor, progress: Progress, times: float = 1.0) -> Tensor:
        """Return the loss of a forward pass plus the penalty on it.

        Args:
            loss: the loss, a scalar.
            progress: the progress of the training.
            times: the number of updates that the penalty stands for; 0 discards the penalty.
        """
        penalty = self.forward_penalty(progress)
        return loss if penalty is None or not times else loss + times * penalty.to(loss)

    @torch.no_grad()
    def add_gradient(self, graph: ChannelGraph, masks: Masks | None, progress: Progress) -> None:
        """Add the gradient of the penalty to ``.grad``. Called once per optimizer update."""
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
