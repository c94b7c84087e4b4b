"""Options: what to do about masks that do not fit, such as those of a trace with other options."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from easypruner.errors import EasyPrunerError
from easypruner.graph.answers.answers import Answers

_CUT = '; they fit the network before it was cut: select masks of the network as it is now'


def advise_on(
    masks: Mapping[str, Tensor],
    names: Sequence[str],
    answers: Answers,
    retrace: Callable[[Mapping[str, str]], Mapping[str, int]],
) -> str:
    """Return what to do about masks that do not fit: text to append to a message, or none.

    Args:
        masks: group -> mask.
        names: the names of the groups, in order.
        answers: what the trace found.
        retrace: returns group -> the number of its units in a trace with other options.
    """
    if answers.cuts and _fit(masks, dict(zip(names, answers.original_sizes, strict=True))):
        return _CUT
    for options in answers.other_options():
        with contextlib.suppress(EasyPrunerError):
            if _fit(masks, retrace(options)):
                given = ', '.join(f'{name}={value!r}' for name, value in options.items())
                return f'; they fit a trace with {given}: pass that to easypruner.trace or verify'
    reasons = {entry.param: entry.reason for entry in reversed(answers.frozen)}
    held = (reasons.get(f'{name}.weight') for name in masks if name not in names)
    return next((f'; its channels stay: {reason}' for reason in held if reason), '')


def _fit(masks: Mapping[str, Tensor], sizes: Mapping[str, int]) -> bool:
    """Return whether each mask has one entry for each unit of its group."""
    return all(sizes.get(name) == mask.numel() for name, mask in masks.items())
