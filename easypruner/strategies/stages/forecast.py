"""Forecast: what is known about a run before it starts, at each of its stages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from mmengine.config import Config

from easypruner.errors import ConfigError
from easypruner.graph import ChannelGraph, Masks

Margin = Callable[[ChannelGraph], float | None]
"""Returns how far the lowest score of a network is above a threshold, or None."""


@dataclass(frozen=True)
class Push:
    """How a stage pushes channels towards zero.

    Attributes:
        reach: the reach of the penalty, as the plan prints it.
        weak: a warning that the reach is too small to bring channels to zero, or ''. It only
            concerns the last push before a cut, because earlier ones only influence the ranking.
        warnings: other warnings.
    """

    reach: str
    weak: str = ''
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Step:
    """What a stage does to the network, as far as this is known before the run starts.

    Attributes:
        epochs: the number of epochs that it trains for.
        push: how it pushes channels towards zero during training; None if it does not.
        zeroes: whether it sets channels to zero.
        cuts: whether it removes channels.
        loads: whether it loads weights from outside of the run.
        taught: whether its teacher is the unpruned network of this run.
        margin: if it selects channels by a threshold, how far the lowest score is above it.
        rewinds: whether it returns to the weights of the unpruned network.
        renews: whether it draws all weights again.
    """

    epochs: int = 0
    push: Push | None = None
    zeroes: bool = False
    cuts: bool = False
    loads: bool = False
    taught: bool = False
    margin: Margin | None = None
    rewinds: bool = False
    renews: bool = False


def trained_epochs(steps: Sequence[Step]) -> int:
    """Return the number of epochs that the final weights are trained for.

    >>> trained_epochs([Step(epochs=8), Step(renews=True), Step(epochs=26)])
    26
    """
    first = max((number for number, step in enumerate(steps) if step.renews), default=0)
    return sum(step.epochs for step in steps[first:])


@dataclass(frozen=True)
class Forecast:
    """What is known about a run at one of its stages, before the run starts.

    Attributes:
        config: the config of the run.
        seed: the seed of the run.
        graph: the channel graph of the network that the run starts with.
        epoch_length: the number of iterations of a training epoch.
        masks: whether there are masks at this stage that have not been cut.
        cut: whether an earlier stage cuts the network, so that ``graph`` is no longer its graph.
        fixed: the reason why the weights can no longer be trained or cut, such as ``'quantize has
            made them integers'``; '' if they can.
        rows: whether an earlier stage may add a row to the final table.
        earlier: the steps of the stages before this one.
        step: what this stage does; the stage itself sets it.
    """

    config: Config
    seed: int
    graph: ChannelGraph
    epoch_length: int
    masks: bool = False
    cut: bool = False
    fixed: str = ''
    rows: bool = False
    earlier: tuple[Step, ...] = ()
    step: Step = field(default_factory=Step)

    def check_not_fixed(self) -> None:
        """Raise ConfigError if the weights can no longer be trained or cut."""
        if self.fixed:
            raise ConfigError(
                f'{self.fixed}: they can no longer be trained or cut; move this stage before it'
            )

    def check_masks(self, stage: str) -> None:
        """Raise ConfigError if there are no masks at this stage."""
        if not self.masks:
            raise ConfigError(
                f'{stage} needs masks, but there are none; put a SelectMask or LoadMask stage '
                'before it'
            )

    def check_rows(self, stage: str) -> None:
        """Raise ConfigError if no stage before this one can have added a row."""
        if not self.rows:
            raise ConfigError(no_rows(stage))

    @property
    def nothing_kept(self) -> Masks:
        """Masks that remove all units: the worst case for a regularizer."""
        groups = self.graph.groups.items()
        return Masks({name: torch.zeros(g.size, dtype=torch.bool) for name, g in groups})

    @property
    def worst_masks(self) -> Masks | None:
        """Masks that remove all units, if masks will be selected; which units stay is unknown."""
        return self.nothing_kept if self.masks else None


def no_rows(stage: str) -> str:
    """Return the message for a stage that needs rows where there are none."""
    return (
        f'{stage} needs at least one row, but no stage before it adds one; '
        "give a Train stage a row, as in dict(type='Train', row='baseline')"
    )


def pushes_last(steps: Sequence[Step], index: int) -> bool:
    """Tell whether stage ``index`` is the last one that pushes before the next cut.

    This stage must bring the removed channels to zero. Earlier ones only influence the ranking.
    """
    for step in steps[index + 1 :]:
        if step.push is not None or step.rewinds:
            return False
        if step.cuts:
            return True
    return False


def margin_after(steps: Sequence[Step], index: int) -> Margin | None:
    """Return the margin of the selection that follows stage ``index`` without another training."""
    for step in steps[index + 1 :]:
        if step.margin is not None:
            return step.margin
        if step.cuts or step.epochs:
            return None
    return None


def unpruned_before(steps: Sequence[Step], trained: bool) -> int | None:
    """Return the stage before which the weights of a run are those of the unpruned network.

    It is the first stage that cuts, sets channels to zero or pushes them there, because a network
    after a push may already have lost accuracy. If nothing is trained before that stage, it is the
    first stage that cuts. A stage that returns to these weights counts like one that cuts.

    Args:
        steps: the steps of the run's stages.
        trained: whether the run starts with trained weights.

    Returns:
        the number of the stage; None if no stage cuts or returns to these weights.
    """
    cuts = [number for number, step in enumerate(steps) if step.cuts or step.rewinds]
    if not cuts:
        return None
    for number, step in enumerate(steps[: cuts[0]]):
        if trained and (step.push is not None or step.zeroes):
            return number
        trained = trained or step.epochs > 0 or step.loads
    return cuts[0]
