"""The page docs/push.md."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from push_page_regularizers import section
from push_recipes import ONE_GROUP

from easypruner.strategies.regularizers.pull import ENOUGH

PAGE = Path(__file__).resolve().parent.parent / 'docs' / 'push.md'

_TEMPLATE = """# Pushing channels to zero

Written by `benchmarks/push.py`, with torch {torch} on {machine}.

A cut is free if the removed channels are silent before it. A sparsity stage silences them: it
pushes the norm scales g of the removed channels to zero while the network trains. A penalty can act
in two forms, which `apply` chooses:

| `apply` | what happens at each update | holds under |
|---|---|---|
| `'gradient'` | the gradient strength · sign(g) is added before the optimizer's step, as in the \
papers | SGD and its relatives, which move a parameter in proportion to its gradient |
| `'proximal'` | after the step, g moves towards zero by lr · strength / (1 - momentum), and stops \
there (soft thresholding). The momentum only counts for SGD and its relatives | every optimizer |

Adam and its relatives divide a gradient by its own magnitude, so a penalty in the gradient has
next to no effect there. By default, `apply` is `'gradient'` under SGD and `'proximal'` under an
optimizer that divides gradients; penalties that compete with the loss are an exception, see [other
regularizers](#other-regularizers). The plan of a run prints the form. EasyPruner finds out how an
optimizer responds by running it on one parameter, so that this also holds for optimizers that it
has never seen.

A channel whose scale is zero still contributes its bias. In the proximal form, `MaskSparsity` also
pushes the biases of the removed channels (`biases=True`).

## How strong

| `strength` | meaning |
|---|---|
| a number | the factor λ of the penalty |
| `dict(reach=R)` | the strength with which the penalty alone moves a parameter by R during the \
stage. The sum runs over all updates, with the build-up of momentum, and with the learning rate of \
the scales' own parameter group (`paramwise_cfg`) |
| `dict(until=1e-3)` | a closed loop: the strength of a group grows until all its magnitudes are \
below the value. They should arrive within the first quarter of the stage, so that \
the network can adapt in the rest. The channels that stay are not touched |

A strength moves a scale to zero if it is stronger than the loss. The *pull* of the loss on a scale
g is the part of its mean gradient that leads away from zero, -sign(g) · dL/dg, over 32 updates on
the network's own batches. Under an optimizer that divides gradients, it is the movement of the
scale in an update, divided by the learning rate. A stage measures the pulls at its start and three
more times. After the first time it prints a note if the strength is below

    strength that moves the largest scale to zero without a loss + {enough:g} · largest pull

and names the strength that would be enough; `push.json` in the folder of the stage has the pulls.
The factor {enough:g} comes from the following runs:
`MaskSparsity` with a grid of strengths, on the digits (30% of the MACs kept) and on
`mnist5k_hard` (15%). *Alone* is the strength that is enough without a loss; *factor* is (strength -
alone) / pull at the start; *left* is the number of removed scales above 0.01 at the end of the
stage. The accuracies are those before and right after the cut. {fit}

| run | form | strength | alone | pull: start, later | factor | left | accuracy: before, after |
|---|---|---|---|---|---|---|---|
{strengths}

Before the cut, a run measures what the cut will cost: it cuts a copy of the network and
recalibrates its batch norms on a few batches. It warns if scales are not at zero, or if the
accuracy falls by a point or more.

## Every optimizer

ResNet-20 on scikit-learn's digits: 8 epochs of training, then masks by `L1Norm` for half of the
MACs, then 6 epochs with `MaskSparsity`, the cut, and calibration. The strength is
`dict(reach=5)`; where a gradient has no reach that can be chosen, it is the number that the
proximal form has. *Reach without loss* is announced and measured for a stage whose loss is 0 (a
scale then moves by the penalty alone). The magnitudes are those of the removed channels at the end
of the stage.

| optimizer | form | reach | reach without loss: announced, measured | scales: median, largest | \
largest bias | accuracy before the cut | after it | calibrated |
|---|---|---|---|---|---|---|---|---|
{optimizers}

## Transformers

A vision transformer of 4 layers, and a ConvNeXt of two stages with two blocks each, under AdamW, on
the digits, with {transformer_kept:.0%} of the MACs kept. Most groups of the transformer have no
norm of their own, so `without_scales='weights'` pushes the weights and biases that make the removed
channels. In the ConvNeXt, `scales='layer_norm'` pushes the scales of the layer norms, and
`without_scales='weights'` what makes the hidden channels of the MLPs. What *silent* means depends
on the group:

- Hidden channels of an MLP (in a ConvNeXt block, between the pointwise convolutions) are silent
  when their weights and biases are zero. Their cut is free.
- A cut of whole heads (`graph=dict(attention='heads')`) is free. A cut that makes every head
  narrower is not: attention divides by the square root of the width of a head, which changes.
- The channels that all blocks add to pass layer norms, whose statistics run over all channels. A
  cut changes them even if the removed channels are zero. `ignore` excludes these groups.

| network | pruned groups | baseline | before the cut | after it | cost |
|---|---|---|---|---|---|
{transformer}

{regularizers}

## Recipes over seeds

`until`: masks by `L1Norm`, then `MaskSparsity(strength=dict(until=1e-3))` in its proximal form,
the cut, calibration, and fine-tuning. *Kept* is the share of MACs that stays. A sparsity stage and
fine-tuning take 6 epochs on the digits and 12 on `mnist5k_hard`: 5,000 MNIST images, distorted and
cluttered so that a cut costs accuracy there, for a ResNet-20 of width 8. Accuracies are means over
{seeds} seeds, ± standard deviations, in percent. *Cost* is the accuracy before the cut minus the
accuracy after it, and the largest cost of a seed.

| data | optimizer | kept | baseline | before the cut | after it | cost: mean, largest | \
fine-tuned |
|---|---|---|---|---|---|---|---|
{until}

## Compared with other recipes

On `mnist5k_hard` under SGD, with {lowest:.0%} of the MACs kept. All recipes start from the same
baselines and train for 24 more epochs (`scratch`: 32 epochs with new weights): `reach20`, `reach40`
and `reach80` are `until` with a fixed strength, such as `dict(reach=20)`; `paper` is MaskSparsity
as in its paper (a global penalty with a reach of 1, masks by `BNScale`, then a reach of 20 in the
gradient form); `slimming` has the global penalty only; `l1` cuts at once. No group loses more than
{most:.0%} of its channels.

| recipe | before the cut | after it | calibrated | fine-tuned |
|---|---|---|---|---|
{rivals}
"""


def write_page(results: Path, out: Path | None) -> None:
    """Write the page from the files of results."""
    optimizers, strengths, recipes, transformer, regularizers = (
        json.loads((results / f'push_{part}.json').read_text(encoding='utf-8'))
        for part in ('optimizers', 'strength', 'recipes', 'transformer', 'regularizers')
    )
    runs = recipes['results']
    shares = {float(name.split('_')[-2]) for name in runs}
    text = _TEMPLATE.format(
        torch=recipes['versions']['torch'],
        machine=recipes['machine'],
        enough=ENOUGH,
        fit=_fit(strengths['results']),
        strengths='\n'.join(_strength_line(*item) for item in strengths['results'].items()),
        optimizers='\n'.join(_optimizer_line(*item) for item in optimizers['results'].items()),
        transformer_kept=0.6,
        transformer='\n'.join(_group_line(*item) for item in transformer['results'].items()),
        regularizers=section(regularizers['results']),
        seeds=len({name.split('_')[-1] for name in runs}),
        until='\n'.join(_until_lines(runs)),
        lowest=min(shares),
        most=ONE_GROUP,
        rivals='\n'.join(_rival_lines(runs, min(shares))),
    )
    (out or PAGE).write_text(text, encoding='utf-8')


def _ratio(result: Mapping[str, Any]) -> float:
    strength, pulls = float(result['strength']), result['pulls']
    return (strength - float(result['alone'])) / float(pulls[0])


def _fit(runs: Mapping[str, Mapping[str, Any]]) -> str:
    """Say how the rule does on the runs."""
    enough = [run for run in runs.values() if _ratio(run) >= ENOUGH]
    below = [run for run in runs.values() if _ratio(run) < ENOUGH]
    left = [sum(run['left'] > 0 for run in part) for part in (enough, below)]
    return (
        f'Of {len(enough)} runs with at least this strength, {left[0]} left scales; of the '
        f'{len(below)} runs below it, {left[1]} did.'
    )


def _strength_line(name: str, result: Mapping[str, Any]) -> str:
    data, optimizer, form, strength, _ = name.split('_')
    first, *later = result['pulls']
    cells = [
        f'{data}, {optimizer}',
        form,
        strength,
        f'{result["alone"]:.2g}',
        f'{first:.2g}, {max(later, default=first):.2g}',
        f'{_ratio(result):.1f}',
        f'{result["left"]} of {result["removed"]}',
        ', '.join(f'{accuracy:.1f}' for accuracy in result['accuracy']),
    ]
    return '| ' + ' | '.join(cells) + ' |'


def _optimizer_line(name: str, result: Mapping[str, Any]) -> str:
    optimizer, form = name.split(' | ')
    announced, measured = (result[f'{kind}_without_loss'] for kind in ('announced', 'measured'))
    cells = [
        optimizer,
        form,
        f'{result["announced"]:.2g}',
        f'{announced:.3f}, {measured:.3f}',
        ', '.join(f'{value:.1e}' if value else '0' for value in result['scales']),
        f'{result["bias"]:.1e}' if result['bias'] else '0',
        *(f'{accuracy:.2f}' for accuracy in result['accuracy']),
    ]
    return '| ' + ' | '.join(cells) + ' |'


_GROUPS = {
    'everything': ('transformer', 'all'),
    'without_stream': ('transformer', 'MLPs, width of heads'),
    'heads_without_stream': ('transformer', 'MLPs, whole heads'),
    'convnext_everything': ('ConvNeXt', 'all'),
    'convnext_streams': ('ConvNeXt', 'channels that blocks add to'),
    'convnext_without_streams': ('ConvNeXt', 'MLPs'),
}


def _group_line(name: str, rows: Mapping[str, float]) -> str:
    accuracies = [f'{rows[row]:.2f}' for row in ('baseline', 'sparse', 'pruned')]
    cost = f'{rows["sparse"] - rows["pruned"]:.2f}'
    return '| ' + ' | '.join([*_GROUPS[name], *accuracies, cost]) + ' |'


def _until_lines(runs: Mapping[str, Mapping[str, float]]) -> list[str]:
    lines = []
    keys = dict.fromkeys(name.rpartition('_')[0] for name in runs if '_until_' in name)
    for key in keys:
        data, optimizer, _, keep = key.split('_')
        found = [run for name, run in runs.items() if name.startswith(f'{key}_')]
        costs = [run['sparse'] - run['pruned'] for run in found]
        cells = [data, optimizer, f'{float(keep):.0%}']
        cells += [_mean(found, row) for row in ('baseline', 'sparse', 'pruned')]
        cells += [f'{statistics.mean(costs):.2f}, {max(costs):.2f}', _mean(found, 'finetuned')]
        lines.append('| ' + ' | '.join(cells) + ' |')
    return lines


def _rival_lines(runs: Mapping[str, Mapping[str, float]], keep: float) -> list[str]:
    own = {name: run for name, run in runs.items() if name.startswith('mnist_SGD_')}
    lines = []
    for recipe in dict.fromkeys(name.split('_')[2] for name in own):
        found = [run for name, run in own.items() if f'_{recipe}_{keep:g}_' in name]
        cells = [_mean(found, row) for row in ('sparse', 'pruned', 'calibrated', 'finetuned')]
        lines.append(f'| `{recipe}` | ' + ' | '.join(cells) + ' |')
    return lines


def _mean(runs: Sequence[Mapping[str, float]], row: str) -> str:
    values = [run[row] for run in runs if row in run]
    if not values:
        return ''
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f'{statistics.mean(values):.2f} ± {spread:.2f}'
