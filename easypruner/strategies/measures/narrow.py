"""Narrow groups: those of which masks leave so few channels that the network may stop training."""

from __future__ import annotations

from easypruner.graph import Masks

_LEAST_SHARE = 1 / 8
_FEW = 2
_SMALL = 8
_SHOWN = 3


def narrow_warning(masks: Masks) -> str:
    """Return a warning that names the groups of which few units stay, or ''.

    If all data passes such a group, as in the stream that residual blocks add to, the network stops
    training when the last of its channels is silenced by a ReLU.

    Args:
        masks: the masks, True = keep.
    """
    counts = {
        name: (int(mask.sum()), len(mask)) for name, mask in masks.items() if len(mask) >= _SMALL
    }
    few = {
        name: (kept, size)
        for name, (kept, size) in counts.items()
        if 0 < kept < size and (kept <= _FEW or kept < _LEAST_SHARE * size)
    }
    if not few:
        return ''
    worst = sorted(few, key=lambda name: few[name][0] / few[name][1])
    named = ', '.join(f'{few[name][0]} of {few[name][1]} in {name!r}' for name in worst[:_SHOWN])
    more = f' and in {len(few) - _SHOWN} more groups' if len(few) > _SHOWN else ''
    return (
        f'few units stay: {named}{more}; if all data passes such a group, the network may lose its '
        "accuracy or stop training; graph=dict(limits={'*': dict(max_removed=0.7)}) keeps 30 % of "
        'each group'
    )
