"""Forecast: what is known of a run before it starts, from one stage to the next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from mmengine.config import Config

from easypruner.errors import ConfigError
from easypruner.graph import ChannelGraph
from easypruner.graph.masks import Masks


@dataclass(frozen=True)
class Push:
    """How a stage pushes channels towards zero.

    Attributes:
        reach: how far the penalty alone can move a scale, as the plan prints it.
        weak: a warning that it cannot bring down what goes, or ''. It only matters for the last
            push before a cut: those before it need only rank.
        warnings: others.
    """

    reach: str
    weak: str = ''
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Step:
    """What a stage does to the network, as far as that is known before the run starts.

    Attributes:
        epochs: that it trains for.
        push: how it pushes channels towards zero while training; None where it does not.
        zeroes: whether it sets channels to zero.
        cuts: whether it removes channels.
        loads: whether it goes on from weights of elsewhere.
        taught: whether the run's own unpruned network teaches it.
    """

    epochs: int = 0
    push: Push | None = None
    zeroes: bool = False
    cuts: bool = False
    loads: bool = False
    taught: bool = False


@dataclass(frozen=True)
class Forecast:
    """What is known beforehand of a run at one of its stages.

    Attributes:
        config: of the run.
        seed: of the run.
        graph: of the network as the run starts with it.
        epoch_length: iterations of a training epoch.
        masks: whether masks are selected by then, and not cut yet.
        cut: whether the network has been cut by then, so that ``graph`` is not its graph.
        fixed: why the weights can be neither trained nor cut any more, such as ``'quantize has
            made them integers'``; '' where they can.
        step: what the stage at hand does; the stage itself sets it.
    """

    config: Config
    seed: int
    graph: ChannelGraph
    epoch_length: int
    masks: bool = False
    cut: bool = False
    fixed: str = ''
    step: Step = field(default_factory=Step)

    def check_not_fixed(self) -> None:
        """Raise ConfigError if the weights can be neither trained nor cut any more."""
        if self.fixed:
            raise ConfigError(
                f'{self.fixed}: they can be neither trained nor cut; put this stage before it'
            )

    @property
    def worst_masks(self) -> Masks | None:
        """Masks that remove everything, where masks will be selected; what they keep is unknown."""
        return removing_everything(self.graph) if self.masks else None


def removing_everything(graph: ChannelGraph) -> Masks:
    """Return masks that keep no unit: the worst that a regularizer may have to push."""
    groups = graph.groups.items()
    return Masks({name: torch.zeros(g.size, dtype=torch.bool) for name, g in groups})


def pushes_last(steps: Sequence[Step], index: int) -> bool:
    """Tell whether no other push comes between stage ``index`` and the next cut.

    That one must bring the removed channels to zero; those before it need only rank them.
    """
    for step in steps[index + 1 :]:
        if step.push is not None:
            return False
        if step.cuts:
            return True
    return False


def unpruned_before(steps: Sequence[Step], trained: bool) -> int | None:
    """Return the stage before which a run's weights are those of the unpruned network.

    That is the first one that cuts, sets channels to zero or pushes them there: after a push the
    network may hold no more than what is left of it. Where nothing was trained by then, it is the
    first one that cuts.

    Args:
        steps: what the stages of the run do.
        trained: whether the run starts with trained weights.

    Returns:
        the number of the stage; None where nothing is cut.
    """
    cuts = [number for number, step in enumerate(steps) if step.cuts]
    if not cuts:
        return None
    for number, step in enumerate(steps[: cuts[0]]):
        if trained and (step.push is not None or step.zeroes):
            return number
        trained = trained or step.epochs > 0 or step.loads
    return cuts[0]
