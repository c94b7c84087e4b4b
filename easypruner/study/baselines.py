"""The baselines that a study adds: random channels, and training from scratch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from easypruner.errors import ConfigError


def baseline_stages(
    kind: str, stages: Sequence[Mapping[str, Any]], epochs: Sequence[int]
) -> list[dict[str, Any]]:
    """Return the stages of a baseline that is comparable with a method.

    Both keep the method's stages before the first push or selection, so that they share the trained
    network, and have its budget. ``'random'`` removes random channels and gives fine-tuning all
    remaining epochs of the method. ``'scratch'`` starts with new weights in the widths of L1 norms,
    and trains them for as many epochs as the whole method.

    Args:
        kind: ``'random'`` or ``'scratch'``.
        stages: the configs of the method's stages.
        epochs: the number of epochs of each of them.
    """
    budget = next(_budgets(stages), None)
    if budget is None:
        raise ConfigError(
            f'the study cannot add the baseline {kind!r}, because no stage of the first config has '
            f'a mask source with a budget; give budgets=[...], or {kind} = False'
        )
    first = next(n for n, stage in enumerate(stages) if not _only_trains(stage))
    start = [dict(stage) for stage in stages[:first]]
    report = [dict(stage) for stage in stages if stage.get('type') == 'Report'][-1:]
    last = next((dict(s) for s in reversed(stages) if _only_trains(s) and 'epochs' in s), None)
    left = sum(epochs[first:])
    source = {'type': 'Random' if kind == 'random' else 'L1Norm', 'budget': budget}
    cut: list[dict[str, Any]] = [{'type': 'SelectMask', 'source': source}, {'type': 'Prune'}]
    rest: list[dict[str, Any]]
    if kind == 'random':
        tuned = {**(last or {}), 'type': 'Train', 'name': 'finetune', 'row': 'finetuned'}
        rest = [{'type': 'Calibrate'}, *([{**tuned, 'epochs': left}] if left else [])]
    else:
        trained = {'type': 'Train', 'name': 'scratch', 'row': 'finetuned', 'epochs': sum(epochs)}
        rest = [{'type': 'Reinitialise'}, trained]
    return [*start, *cut, *rest, *(report or [{'type': 'Report'}])]


def _only_trains(stage: Mapping[str, Any]) -> bool:
    """Return whether a stage only trains or evaluates the network."""
    return stage.get('type') in ('Train', 'Evaluate') and stage.get('regularizer') is None


def _budgets(value: Any) -> Iterator[Any]:
    """Yield the budgets of the mask sources in the stages of a config."""
    if isinstance(value, Mapping):
        source = value.get('source')
        if isinstance(source, Mapping) and source.get('budget') is not None:
            yield source['budget']
        value = list(value.values())
    for item in value if isinstance(value, list | tuple) else ():
        yield from _budgets(item)
