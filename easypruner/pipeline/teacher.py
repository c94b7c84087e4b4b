"""The teacher: which weights of a run teach what is left after its cuts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from easypruner.pipeline.stages import Evaluate, Prune, Train, Zero
from easypruner.strategies import Stage


def unpruned_before(stages: Sequence[Stage], config: Mapping[str, Any]) -> int | None:
    """Return the stage before which a run's weights are those of the unpruned network.

    That is the first one that cuts, sets channels to zero or pushes them there: after a push the
    network may hold no more than what is left of it. Where nothing was trained by then, it is the
    first one that cuts.

    Args:
        stages: of the run.
        config: of the run; with ``load_from`` it starts with trained weights.

    Returns:
        the number of the stage; None where nothing is cut.
    """
    cuts = [number for number, stage in enumerate(stages) if isinstance(stage, Prune)]
    if not cuts:
        return None
    trained = config.get('load_from') is not None
    for number, stage in enumerate(stages[: cuts[0]]):
        pushes = isinstance(stage, Train) and stage.regularizer is not None
        if trained and (pushes or isinstance(stage, Zero)):
            return number
        loads = isinstance(stage, Evaluate) and stage.checkpoint is not None
        trained = trained or isinstance(stage, Train) or loads
    return cuts[0]
