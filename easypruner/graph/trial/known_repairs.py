"""The repairs that rules have noted, which need no search."""

from __future__ import annotations

from easypruner.graph.trial.trial import Trial
from easypruner.graph.trial.widths import Repair, Repairs, join


def find_known_repairs(trial: Trial) -> Repairs:
    """Return the repairs that rules have noted, such as the number of groups of a convolution."""
    found = []
    for width in trial.coupling.tally.widths:
        value = vars(trial.stand_ins.modules[width.module]).get(width.attribute)
        if type(value) is int and value == width.axis.size:
            found.append(Repair(width.module, width.attribute, (width.axis,), (value,), int))
        elif type(value) is tuple and value == (width.axis.size,):
            found.append(Repair(width.module, width.attribute, (width.axis,), value, tuple))
    return join({}, found)
