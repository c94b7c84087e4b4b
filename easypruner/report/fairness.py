"""Differences between compared runs that make a comparison unfair."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from easypruner.base.describe import shown
from easypruner.report.comparison import Comparison, budget_text
from easypruner.report.recipes import read_recipe, settings_of_part
from easypruner.report.text import format_numbers, plural, shortened

_SAME_ACCURACY = 0.005
_SAME_MACS_LEFT = 1.0
_SHORT_HASH = 8
_NOT_SET = 'not set'
_MOST_SETTINGS = 6
_LONGEST_VALUE = 100


def list_differences(comparison: Comparison) -> tuple[str, ...]:
    """Return a sentence for each difference that matters; empty if the comparison is fair."""
    return (
        *_different_parts(comparison),
        *_different_networks(comparison),
        *_different_versions(comparison),
        *_seeds(comparison),
    )


def list_different_settings(methods: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    """Return a sentence for each setting in which methods differ, before any of them has run.

    Args:
        methods: name of a method -> part of its config, such as ``'data'`` -> settings.

    >>> list_different_settings({'a': {'data': {'size': 8}}, 'b': {'data': {'size': 4}}})
    ('the data differ: size: 8 (a); 4 (b)',)
    """
    flat = {name: dict(_leaves(parts)) for name, parts in methods.items()}
    sentences = []
    for path in dict.fromkeys(path for leaves in flat.values() for path in leaves):
        owners: dict[str, list[str]] = defaultdict(list)
        for name, leaves in flat.items():
            owners[shown(leaves[path]) if path in leaves else _NOT_SET].append(name)
        if len(owners) > 1:
            (part, *inner), verb = path, 'differ' if path[0] in ('data', 'epochs') else 'differs'
            values = '; '.join(f'{value} ({", ".join(who)})' for value, who in owners.items())
            sentences.append(f'the {part} {verb}: {".".join(inner)}: {values}')
    return tuple(sentences)


def _leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield (path, value) of everything in nested dicts."""
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _leaves(item, (*path, str(key)))
    else:
        yield path, value


def _different_parts(comparison: Comparison) -> Iterator[str]:
    for part in dict.fromkeys(part for run in comparison.runs for part in run.parts):
        hashes = [run.parts.get(part, 'unknown')[:_SHORT_HASH] for run in comparison.runs]
        if len(set(hashes)) > 1:
            what = f'the configs differ in their {part}'
            found = list(_different_settings(comparison, part, what))
            # Without the configs of the runs, only the hashes are known.
            yield from found or _differing(comparison, what, hashes)
    yield from _differing(comparison, 'the budgets differ', map(budget_text, comparison.runs))
    ends = [run.final.name for run in comparison.runs]
    yield from _differing(comparison, 'the runs end at different points', ends)


def _different_settings(comparison: Comparison, part: str, what: str) -> Iterator[str]:
    """Yield a sentence for each setting of a part in which the configs of runs differ."""
    recipes = [read_recipe(run.work_dir) for run in comparison.runs]
    if not all(recipes):
        return
    settings = [settings_of_part(recipe, part) for recipe in recipes]
    found: list[str] = []
    for key in dict.fromkeys(key for each in settings for key in each):
        values = [shortened(each.get(key, _NOT_SET), _LONGEST_VALUE) for each in settings]
        found += _differing(comparison, f'{what}: {key}', values)
    yield from found[:_MOST_SETTINGS]
    if len(found) > _MOST_SETTINGS:
        yield f'{what}: {plural(len(found) - _MOST_SETTINGS, "more setting")}; see Recipes'
    if part == 'schedule' and all(run.epochs is not None for run in comparison.runs):
        # Those before weights are drawn anew do not count.
        counted = [run.epochs if run.trained_epochs is None else run.trained_epochs
                   for run in comparison.runs]  # fmt: skip
        epochs = [f'{count:g}' for count in counted]
        yield from _differing(comparison, f'{what}: epochs of all stages', epochs)


def _different_networks(comparison: Comparison) -> Iterator[str]:
    networks = [f'{run.whole.macs} MACs, {run.whole.params} params' for run in comparison.runs]
    yield from _differing(comparison, 'the unpruned networks differ', networks)
    apart = _range([line.baseline.mean for line in comparison.lines])
    if apart > _SAME_ACCURACY:
        yield (
            f'the baselines differ by up to {apart:.2f} points; compare the changes, not only the '
            'accuracies'
        )
    apart = _range([line.macs_left.mean for line in comparison.lines])
    if apart > _SAME_MACS_LEFT:
        yield f'the remaining shares of MACs differ by up to {apart:.1f} percentage points'


def _different_versions(comparison: Comparison) -> Iterator[str]:
    for package in dict.fromkeys(name for run in comparison.runs for name in run.versions):
        versions = [run.versions.get(package, 'unknown') for run in comparison.runs]
        yield from _differing(comparison, f'the versions of {package} differ', versions)


def _seeds(comparison: Comparison) -> Iterator[str]:
    single = [line.name for line in comparison.lines if len(line.runs) == 1]
    if single:
        yield (
            f'only one seed: {", ".join(single)}; a difference that is smaller than the spread '
            'over seeds means nothing'
        )
    if len({line.seeds for line in comparison.lines}) > 1:
        yield 'the seeds differ: ' + '; '.join(
            f'{format_numbers(line.seeds)} ({line.name})' for line in comparison.lines
        )
    for line in comparison.lines:
        repeated = [str(seed) for seed, times in Counter(line.seeds).items() if times > 1]
        if repeated:
            yield (
                f'{line.name} has several runs with seed {", ".join(repeated)}, so its deviation '
                'is not that over different seeds'
            )


def _differing(comparison: Comparison, what: str, values: Iterable[str]) -> Iterator[str]:
    owners = {run.work_dir: line.name for line in comparison.lines for run in line.runs}
    names: dict[str, dict[str, None]] = defaultdict(dict)
    for run, value in zip(comparison.runs, values, strict=True):
        names[value][owners[run.work_dir]] = None
    if len(names) > 1:
        yield f'{what}: ' + '; '.join(f'{value} ({", ".join(who)})' for value, who in names.items())


def _range(values: list[float]) -> float:
    return max(values) - min(values)
