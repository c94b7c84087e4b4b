"""Regularizer: pushes channels towards zero during training."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from easypruner.base.checks import check_name, check_number
from easypruner.errors import ConfigError, MasksMissingError
from easypruner.graph import ChannelGraph, Masks
from easypruner.graph.coupling.patterns import first_fitting
from easypruner.strategies.regularizers.closed_loop import ARRIVAL, ClosedLoop
from easypruner.strategies.regularizers.forms import FORMS, RAISE_RATES, Kind, check_closes_loop
from easypruner.strategies.regularizers.penalties import check_penalty, penalty_gradients
from easypruner.strategies.regularizers.schedule import Progress, Schedule, ramp_of
from easypruner.strategies.regularizers.selected import SelectedScales
from easypruner.strategies.regularizers.stepping import StepSizes, move_to_zero
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
            ``dict(until=U)`` raises the strength of each group during the stage, until the
            magnitudes that must come to zero are below U. It makes the penalty proximal.
        strength_schedule: the course of the strength over the stage: ``'constant'``;
            ``'linear'`` or ``'cosine'``, from 0 to 1; ``'warmup'``, over the first tenth; or
            ``dict(warmup=share)``.
        group_strengths: path, glob or name of groups -> factor of the strength there; the first
            pattern that matches a group is used.
        apply: how the penalty acts. ``'gradient'`` adds its gradient before each optimizer update.
            ``'proximal'`` moves parameters towards zero after the update, by lr * strength / (1 -
            momentum) times the gradient, and stops at zero; for an L1 penalty this is soft
            thresholding (Parikh and Boyd, 2014, section 6.5.2). None chooses ``'gradient'`` if the
            optimizer is SGD or alike, and ``'proximal'`` if it divides gradients by their own
            magnitude, as Adam does. A gradient would have no effect there. A regularizer that
            :attr:`selects` is always a gradient by default.
    """

    example_arguments: ClassVar = {'strength': 1e-3}

    def __init__(
        self,
        strength: float | Mapping[str, float],
        strength_schedule: str | Mapping[str, float] = 'constant',
        group_strengths: Mapping[str, float] | None = None,
        apply: str | None = None,
    ) -> None:
        self._requested_strength = strength
        self.strength = strength if isinstance(strength, int | float) else 0.0
        if isinstance(strength, Mapping) and set(strength) not in ({'reach'}, {'until'}):
            raise ConfigError(
                f'strength={dict(strength)!r} of {type(self).__name__}; '
                'expected a number, dict(reach=number) or dict(until=number)'
            )
        value = next(iter(strength.values())) if isinstance(strength, Mapping) else strength
        check_number(value, 'strength', type(self).__name__, least=0)
        self.loop: ClosedLoop | None = None
        if isinstance(strength, Mapping) and 'until' in strength:
            self._check_closes_loop(strength, apply)
            self.loop = ClosedLoop(strength['until'])
        self.ramp = ramp_of(strength_schedule, type(self).__name__)
        self.apply = apply
        if apply is not None:
            check_name(apply, 'apply', type(self).__name__, FORMS)
        if apply == 'proximal' and not self.is_penalty:
            raise ConfigError(
                f"apply='proximal' of {type(self).__name__}, which is not a penalty on parameters; "
                'leave apply out'
            )
        self._is_proximal = apply == 'proximal' or self.loop is not None
        self.group_strengths = dict(group_strengths or {})
        self._matched: frozenset[str] = frozenset()
        for pattern, factor in self.group_strengths.items():
            check_number(factor, f'group_strengths[{pattern!r}]', type(self).__name__, least=0)

    def schedule(self, schedule: Schedule) -> None:
        """Choose the form and the strength for a stage. It is called once before training.

        Args:
            schedule: the learning rates of the parameters that are pushed.

        Raises:
            ConfigError: no strength has the requested reach.
        """
        self._kind.check_form(self.apply, schedule.optimizer)
        self._is_proximal = self._becomes_proximal(schedule)
        if isinstance(self._requested_strength, Mapping):
            self.strength = self.strength_for(schedule, self._requested_strength)

    def strength_for(self, schedule: Schedule, requested: Mapping[str, float]) -> float:
        """Return the strength for ``dict(reach=R)``, or the first one for ``dict(until=U)``."""
        owner = type(self).__name__
        if not self.pushes_parameters:
            raise ConfigError(
                f'{owner} acts on activations, so it does not have a reach: it cannot move a '
                'parameter by a given distance; give its strength as a number'
            )
        if schedule.optimizer.adaptive and not self._is_proximal:
            self._kind.refuse_reach(repr(dict(requested)), schedule.optimizer)
        ramp = self.ramp
        if self.loop is not None:
            # The strength that brings a magnitude of 1 down in time, without a loss.
            ramp = lambda share: self.ramp(share) * (np.asarray(share) < ARRIVAL)  # noqa: E731
        per_strength = schedule.reach_under(ramp, 1.0, self._is_proximal)
        if per_strength <= 0:
            early = '' if self.loop is None else f' in the first {ARRIVAL:.0%} of its updates'
            raise ConfigError(
                f'strength={dict(requested)!r} of {owner} cannot be met, because the learning '
                f'rates of its stage, times its strength_schedule, sum to 0{early}; raise the '
                "learning rate, train longer, or use strength_schedule='constant'"
            )
        return requested.get('reach', 1.0) / per_strength

    def _check_closes_loop(self, strength: Mapping[str, float], apply: str | None) -> None:
        owner = type(self).__name__
        if type(self).magnitudes is Regularizer.magnitudes:
            raise ConfigError(
                f'strength={dict(strength)!r} of {owner}, but {owner} does not say which '
                'magnitudes must come to zero; give a number or dict(reach=number)'
            )
        check_closes_loop(owner, self.selects, repr(dict(strength)), apply)

    @property
    def _kind(self) -> Kind:
        return Kind(type(self).__name__, self.selects, self.shrinks)

    def remedy(self, schedule: Schedule, reach: float) -> str:
        """Return what to do if the reach over a schedule is below ``reach``."""
        if schedule.optimizer.adaptive and self.selects and not self._becomes_proximal(schedule):
            return f'train longer, or {RAISE_RATES}'
        return f'train longer, or set strength=dict(reach={reach:.1f})'

    @property
    def selects(self) -> bool:
        """Whether training decides which values go to zero: where the loss opposes less.

        The push must then compete with the gradient of the loss. Under an optimizer that divides
        gradients, only a gradient does.
        """
        return False

    @property
    def shrinks(self) -> bool:
        """Whether the gradient is a factor times the weight, so that weights shrink by shares."""
        return False

    @property
    def is_penalty(self) -> bool:
        """Whether it is a penalty on parameters, which can be applied in both forms."""
        return type(self).penalty is not Regularizer.penalty

    def _becomes_proximal(self, schedule: Schedule) -> bool:
        if self.loop is not None:
            return True
        if self.apply is None:
            return self.is_penalty and not self.selects and schedule.optimizer.adaptive
        return self.apply == 'proximal'

    @property
    def is_proximal(self) -> bool:
        """Whether it pushes after each optimizer update, with :meth:`shrink`.

        Before :meth:`schedule`, this is so with ``apply='proximal'`` only.
        """
        return self._is_proximal

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
        gains = self.loop.gains if self.loop else {}
        return {name: found.get(name, 1.0) * gains.get(name, 1.0) for name in graph.groups}

    def needed_masks(self, graph: ChannelGraph, masks: Masks | None) -> Masks:
        """Return the masks, for a regularizer that pushes the channels that they remove.

        Raises:
            MasksMissingError: there are no masks.
            MaskError: a mask does not belong to a group of this graph, or has another shape.
        """
        if masks is None:
            raise MasksMissingError(
                f'{type(self).__name__} pushes the channels that masks remove, but there are no '
                'masks yet; put a SelectMask or LoadMask stage before this Train stage, or give '
                'masks= to easypruner.regularize'
            )
        # Here a mask may remove all units: before a run starts, the worst case is assumed.
        Masks({name: mask for name, mask in masks.items() if bool(mask.any())}).check(graph)
        return masks

    def reach(self, schedule: Schedule) -> float:
        """Return how far the penalty alone can move a parameter over ``schedule``."""
        return schedule.reach_under(self.ramp, self.strength, self._becomes_proximal(schedule))

    def pushed_names(self, graph: ChannelGraph, masks: Masks | None) -> list[str]:
        """Return the names of the parameters that it pushes; empty if it cannot tell."""
        return []

    def largest(self, graph: ChannelGraph, masks: Masks | None) -> float:
        """Return the largest magnitude that must come to zero; 0 if none must.

        A magnitude is divided by its group's factor of the strength.

        Raises:
            EasyPrunerError: there is nothing to push, or a parameter has NaN entries.
        """
        return 0.0

    def to_zero(self, graph: ChannelGraph, masks: Masks | None) -> SelectedScales:
        """Return the entries of parameters that must all come to zero; empty if none must."""
        return SelectedScales()

    def magnitudes(self, graph: ChannelGraph, masks: Masks | None) -> dict[str, float]:
        """Return group -> the largest magnitude that must come to zero, for ``dict(until=U)``."""
        raise NotImplementedError(f'{type(self).__name__} does not implement magnitudes()')

    def refresh(self) -> None:
        """Forget what was prepared for updates, because the strength of a group has changed."""

    def adapt(self, graph: ChannelGraph, masks: Masks | None, progress: Progress) -> None:
        """Adapt the strengths of groups under ``dict(until=U)``. Called after :meth:`shrink`."""
        loop = self.loop
        if loop is None or not loop.is_due(progress.update, progress.updates, progress.times):
            return
        if loop.follow(self.magnitudes(graph, masks), progress.share):
            self.refresh()

    def unmet(self, graph: ChannelGraph, masks: Masks | None) -> str:
        """Return a warning if the stage ends without meeting ``dict(until=U)``, or ''."""
        if self.loop is None:
            return ''
        found = self.magnitudes(graph, masks)
        above = sorted((n for n in found if found[n] > self.loop.until), key=found.__getitem__)
        if not above:
            return ''
        worst = above[-1]
        return (
            f'{type(self).__name__} has not met until={self.loop.until:g} in {len(above)} of '
            f'{len(found)} groups (largest {found[worst]:.2g}, in {worst!r}): the cut will change '
            'the outputs; train longer, with a higher learning rate, or let more channels stay'
        )

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
        if penalty is None or not times:
            return loss
        penalty = check_penalty(penalty, 'forward_penalty', type(self).__name__)
        return loss + times * penalty.to(loss).reshape(())

    @torch.no_grad()
    def add_gradient(self, graph: ChannelGraph, masks: Masks | None, progress: Progress) -> None:
        """Add the gradient of the penalty to ``.grad``. Called once per optimizer update."""
        if not self.pushes_parameters:
            return
        parameters = [p for p in graph.model.parameters() if p.requires_grad]
        with torch.enable_grad():
            penalty = check_penalty(self.penalty(graph, masks), 'penalty', type(self).__name__)
            gradients = penalty_gradients(penalty, parameters, type(self).__name__)
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

    def before_step(self, graph: ChannelGraph, masks: Masks | None, progress: Progress) -> None:
        """Do what has to be done right before an optimizer update."""
        if not self.is_proximal:
            self.add_gradient(graph, masks, progress)

    def after_step(self, graph: ChannelGraph, masks: Masks | None, progress: Progress) -> None:
        """Do what has to be done right after an optimizer update."""
        if self.is_proximal:
            self.shrink(graph, masks, progress)
            self.adapt(graph, masks, progress)

    @torch.no_grad()
    def shrink(self, graph: ChannelGraph, masks: Masks | None, progress: Progress) -> None:
        """Move parameters towards zero. Called once after each optimizer update.

        Each parameter moves by lr * strength / (1 - momentum) times the gradient of the penalty,
        with the learning rate of its own parameter group. Entries that would change their sign
        become zero.
        """
        optimizer = progress.known_optimizer()
        parameters = [p for group in optimizer.param_groups for p in group['params']]
        gradients = [parameter.grad for parameter in parameters]
        for parameter in parameters:
            parameter.grad = None
        self.add_gradient(graph, masks, replace(progress, grad_scale=None))
        pushed = [(p, p.grad) for p in parameters if p.grad is not None]
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        sizes = StepSizes(optimizer, [parameter for parameter, _ in pushed])(progress)
        for (parameter, push), size in zip(pushed, sizes, strict=True):
            move_to_zero(parameter, size * push, optimizer)
