"""Writes the page docs/coverage.md: totals, a line for each model, and unsupported dimensions."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
from collections.abc import Callable, Iterator, Sequence

from coverage_check import META_PARAMS
from coverage_parts import by_source, shares_table, slowest_table
from coverage_result import CAUSES, TOLERANCE, TOLERANCE_SINGLE, Result

from easypruner.base.cache import processor

_LIBRARIES = (
    'torch', 'torchvision', 'mmpretrain', 'timm', 'transformers', 'ultralytics', 'diffusers',
    'segmentation_models_pytorch',
)  # fmt: skip
_REASON_LENGTH = 220

_TEMPLATE = """# {title}

Written by `benchmarks/coverage.py`, which tries EasyPruner on models of libraries, with random
weights: {sources}.
`benchmarks/models.py` says how they are selected.{missing}
Measured with {versions} on {machine}.

Each model is checked in a process of its own:

- *trace*: `easypruner.trace` does not raise. The seconds are CPU seconds of one run, the first,
  on one thread, with what the libraries import and set up at a first use.
- *dimensions*: each channel of each parameter is either in a group or in `graph.frozen` with a
  reason, and is counted once.
- *verify*: random masks remove half of the units of each group, but not all. `easypruner.verify`
  compares the pruned network in double precision with the full one, in which the weights that read
  removed channels are zero. The relative error must be below {tolerance:.0e}. Groups whose channels
  an operation mixes, such as a layer norm, are left whole and counted as *unchecked*, because to
  zero such a channel is not to remove it. To save time, models that also run on images of 96 px
  are verified on those.
- *shapes*: the pruned model runs, and its outputs have the same shapes as before. Outputs that do
  not count, such as the features that a YOLO returns beside its boxes, may lose channels.
- *costs*: the MACs and parameters that `graph.cost` predicts, for the full and for the pruned
  model, equal those that torch's `FlopCounterMode` (halved) counts and those of the model.

A model is *handled* if it passes all checks. It is *complete* if, in addition, no dimension is
*unsupported*. A dimension is unsupported if it is frozen because the forward pass does not follow a
cut, because an operation has no rule, or because of another structure that EasyPruner does not
support. Other dimensions are frozen because of the network itself: the channels of its inputs and
outputs (*boundary*); kernel extents, single channels, tables, the factor of a width that keeps its
size, as the number of heads does where their width is cut, and channels whose position the code
uses, such as the class scores that a detector sorts and the coordinates of its boxes (*fixed*);
parameters that the forward pass does not use (*unused*). All these numbers count dimensions of
parameters. *prunable* is the share of the parameters that have a dimension in a group.

A network is a *cnn* unless its forward pass multiplies two activations as matrices (attention,
correlation volumes), applies a linear layer to a sequence of tokens, or has a recurrent layer.

If a model has attention, it is traced once more with `attention='heads'`, and a cut of whole heads
is verified in the same way.

## Totals

| | models | handled | goal | complete | goal |
|---|---|---|---|---|---|
{totals}
{problems}
## By kind of structure

How many units of each kind of structure can go, in all measured models of a library, and how many
of the parameters that belong to them ([`graph.shares`](channel-graph.md)). Heads are those of a
trace with `attention='heads'`, the others those of a trace without options.

{shares}

## The slowest traces

*own* is the CPU time of the model's own forward pass on the same inputs.

{slowest}

## All models

{tables}
m: the model has more than {meta_params} million parameters, so it is built on the meta device,
where it has no values and cannot be verified. v: the number of operations depends on values, such
as the number of regions, so MACs after the cut cannot be predicted. s: the forward pass only works
in single precision, so an error of up to {tolerance_single:.0e} is allowed.
{unsupported}"""


def _missing(count: int) -> str:
    return f' {count} more, the largest or slowest among them, were not reached.' if count else ''


def page(
    results: Sequence[Result], missing: int = 0, title: str = 'Which models can be pruned'
) -> str:
    """Return the page with all results.

    Args:
        results: the results of the measured models.
        missing: the number of models that were not measured.
        title: the title of the page.
    """
    usable = [result for result in results if result.status != 'unusable']
    sources = [f'{len(list(rows))} of {source}' for source, rows in by_source(usable)]
    return _TEMPLATE.format(
        title=title,
        sources=', '.join(sources),
        missing=_missing(missing),
        versions=', '.join(_versions()),
        machine=machine(),
        tolerance=TOLERANCE,
        tolerance_single=TOLERANCE_SINGLE,
        meta_params=META_PARAMS // 1_000_000,
        totals='\n'.join(_totals(usable)),
        problems=_problems(results),
        shares=shares_table(usable),
        slowest=slowest_table(usable),
        tables='\n'.join(_table(source, rows) for source, rows in by_source(usable)),
        unsupported=_unsupported(usable),
    )


def machine() -> str:
    """Return the name of the processor and its number of cores."""
    return f'{processor()}, {os.cpu_count()} cores'


def _versions() -> Iterator[str]:
    for name in _LIBRARIES:
        if importlib.util.find_spec(name) is not None:
            yield f'{name} {importlib.metadata.version(name)}'


def _totals(usable: Sequence[Result]) -> Iterator[str]:
    goals = {'cnn': '97 %', 'other': '92 %'}
    for kind, goal in goals.items():
        yield _total(kind, [result for result in usable if result.kind == kind], goal)
    if lost := [result for result in usable if result.kind not in goals]:
        yield _total('of a kind not found out', lost, '')
    yield _total('all', usable, '')


def _total(name: str, rows: Sequence[Result], goal: str) -> str:
    handled = _share(rows, lambda result: result.handled)
    complete = _share(rows, lambda result: result.complete and result.handled)
    return f'| {name} | {len(rows)} | {handled} | 100 % | {complete} | {goal} |'


def _share(rows: Sequence[Result], holds: Callable[[Result], bool]) -> str:
    count = sum(map(holds, rows))
    return f'{count} ({100 * count / len(rows):.1f} %)' if rows else '0'


def _problems(results: Sequence[Result]) -> str:
    """Return the sections on models that are not handled, and on models that could not be tried."""
    failed = [r for r in results if r.status != 'unusable' and not r.handled]
    unusable = [r for r in results if r.status == 'unusable']
    text = ''
    if failed:
        lines = [f'- {_name(result)}: {"; ".join(_wrong(result))}' for result in failed]
        text += '\n## Not handled\n\n' + '\n'.join(lines) + '\n'
    if unusable:
        lines = [f'- {_name(result)}: {_short(result.error)}' for result in unusable]
        text += (
            '\n## Not tried\n\nThese models cannot be built with default arguments, or their own '
            'forward fails on a plain input.\nThey are not counted.\n\n'
        )
        text += '\n'.join(lines) + '\n'
    return text


def _wrong(result: Result) -> Iterator[str]:
    if result.error:
        yield _short(result.error)
        return
    if result.neither:
        yield f'{result.neither} channels are in no group and not frozen'
    for what, error in zip(('', ' of whole heads'), result.errors, strict=True):
        if error is not None and error >= result.tolerance:
            yield f'verification{what} finds an error of {error:.1e}'
    if not result.keeps_shapes:
        yield 'the outputs of the pruned model have other shapes'
    differing = [name for name, equal in result.costs.items() if not equal]
    if differing:
        yield f'costs that differ: {", ".join(differing)}'


def _table(source: str, rows: Sequence[Result]) -> str:
    head = (
        f'### {source}\n\n'
        '| model | kind | params, M | trace, s | heads, s | groups | prunable, % | boundary '
        '| fixed | unused | unsupported | verify error | unchecked | shapes | costs | |\n'
        '|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|'
    )
    return '\n'.join([head, *map(_row, rows)]) + '\n'


def _row(result: Result) -> str:
    if result.error:
        empty = '| ' * 12
        return f'| {result.name} | {result.kind} {empty}| {result.status} |'
    errors = [error for error in result.errors if error is not None]
    error = max(errors, default=None)
    cells = [
        result.name,
        result.kind,
        f'{result.params / 1e6:.1f}',
        f'{result.seconds:.2f}',
        '' if result.heads_seconds is None else f'{result.heads_seconds:.2f}',
        str(result.groups),
        f'{100 * result.prunable:.1f}',
        *(str(sum(result.frozen(cause).values())) for cause in CAUSES),
        '' if error is None else '0' if error == 0 else f'{error:.0e}',
        str(result.unchecked) if result.verify_error is not None else '',
        _sign(result.keeps_shapes),
        _sign(all(result.costs.values())),
        ' '.join(_notes(result)),
    ]
    return '| ' + ' | '.join(cells) + ' |'


def _sign(holds: bool) -> str:
    return 'same' if holds else '**differ**'


def _notes(result: Result) -> Iterator[str]:
    if not result.verified_on:
        yield 'm'
    if result.counted_on == 'values':
        yield 'v'
    if result.verified_on == 'single':
        yield 's'


def _unsupported(results: Sequence[Result]) -> str:
    lines = []
    for result in results:
        if found := result.frozen('unsupported'):
            lines.append(f'\n{_name(result)}:\n')
            lines += [f'- {dims} x {_short(reason)}' for reason, dims in found.items()]
    if not lines:
        return ''
    title = '\n## What is unsupported, and why\n\nDimensions of parameters, by reason.\n'
    return title + '\n'.join([*lines, ''])


def _name(result: Result) -> str:
    family = f' ({result.family})' if result.family else ''
    return f'{result.source} `{result.name}`{family}'


def _short(text: str) -> str:
    text = text if len(text) <= _REASON_LENGTH else text[: _REASON_LENGTH - 3] + '...'
    # As code, because reasons contain asterisks, brackets and underscores.
    return '`' + text.replace('`', "'") + '`'
