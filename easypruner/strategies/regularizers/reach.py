"""Checks before a regularizer pushes: its reach, and whether it can push now and then."""

from __future__ import annotations

from easypruner.errors import ConfigError
from easypruner.graph import ChannelGraph, Masks
from easypruner.strategies.regularizers.regularizer import Regularizer
from easypruner.strategies.regularizers.schedule import Schedule


def weak_reach(
    regularizer: Regularizer, schedule: Schedule, graph: ChannelGraph, masks: Masks | None
) -> str:
    """Return a warning if the reach of a penalty is too small for the channels, or ''."""
    if not regularizer.pushes_parameters or regularizer.loop is not None:
        return ''
    reach, needed = regularizer.reach(schedule), regularizer.needed_reach(graph, masks)
    if reach >= needed:
        return ''
    return (
        f'{type(regularizer).__name__} has a reach of {reach:.2g}, but it needs at least '
        f'{needed:.2g}: the removed channels will not come close to zero, and the cut will cost '
        f'accuracy; {regularizer.remedy(schedule, max(5.0, 1.25 * needed))}'
    )


def check_lazy(regularizer: Regularizer, argument: str, owner: str) -> None:
    """Raise ConfigError if a regularizer cannot push at every n-th update only."""
    if type(regularizer).penalty is Regularizer.penalty and not regularizer.watches:
        name = type(regularizer).__name__
        raise ConfigError(
            f'{argument} of {owner} needs a regularizer with a penalty(), whose gradient can '
            f'be multiplied to replace several updates; {name} does not have one; leave '
            f'{argument} out, or use another regularizer'
        )
