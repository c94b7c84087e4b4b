"""The teacher: which weights of a run teach what is left after its cuts."""

from __future__ import annotations

from collections.abc import Sequence

from easypruner.contracts import Stage
from easypruner.pipeline.stages import Evaluate, Prune, Train, Zero


def unpruned_before(stages: Sequence[Stage], trained: bool) -> int | None:
    """Return the stage before which a run's weights are those of the unpruned network.

    That is the first one that cuts, sets channels to zero or pushes them there: after a push the
    network may hold no more than what is left of it. Where nothing was trained by then, it is the
    first one that cuts.

    Args:
        stages: of the run.
        trained: whether it starts with weights from outside.

    Returns:
        the number of the stage; None where nothing is cut.
    """
    cuts = [number for number, stage in enumerate(stages) if isinstance(stage, Prune)]
    if not cuts:
        return None
    for number, stage in enumerate(stages[: cuts[0]]):
        pushes = isinstance(stage, Train) and stage.regularizer is not None
        if trained and (pushes or isinstance(stage, Zero)):
            return number
        loads = isinstance(stage, Evaluate) and stage.checkpoint is not None
        trained = trained or isinstance(stage, Train) or loads
    return cuts[0]
