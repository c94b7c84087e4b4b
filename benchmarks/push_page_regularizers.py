"""The section of docs/push.md on the regularizers other than MaskSparsity."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from push_regularizers import FASTER

_SECTION = """## Other regularizers

ResNet-20 on the digits: 8 epochs of training, then 6 epochs with a regularizer, and a cut to half
of the MACs with masks by `BNScale` (scales), `L2Norm` or `Group` (`GroupLasso`), `MeanActivation`
(`ActivationSparsity`) or `L1Norm` (others). `GReg`, `GradDecay` and `GroupLasso(masked=True)` need
masks, so they are chosen before the stage; otherwise after it. *At zero* is the share of scales, or
of norms of filters, below 1e-3. *Gap* is the widest interval between neighbouring scales, without
the lowest and the highest tenth. *Removed* and *kept* are medians: of the norms of filters, and
under `GReg` of what is left of the norms from before the stage. One seed; an image is 0.28 points.

{table}

What holds under which optimizers:

- Penalties without masks (`GlobalSparsity`, `Polarization`, `HoyerSquare`) let training decide
  which channels go: a scale stays where the gradient of the loss is larger than the penalty's.
  Under SGD, they hold in both forms. Under Adam and its relatives, a threshold competes with steps
  of about the learning rate, whatever the size of the gradient: it brings down all scales, or none.
  `apply='proximal'` is refused there, and the default is `'gradient'`. Adam then divides the sum of
  both gradients, and the balance between them is that of the paper. A scale moves by at most its
  learning rate at each update, so the norms need a higher one. In the table, it is {faster:g} times
  that of the weights, without weight decay, and the strength is the number that SGD has:
  `optim_wrapper=dict(paramwise_cfg=dict(custom_keys={{'bn': dict(lr_mult=20, decay_mult=0)}}))`.
- `GroupLasso` without masks shrinks the norms of filters, but behind a batch norm this changes the
  outputs only near zero, so that a cut is not free under any optimizer. With `masked=True` and
  `over='group'`, it brings whole units to exactly zero under every optimizer, and the cut is free.
- `GReg` and `GroupLasso(alpha=...)` shrink weights by shares. Adam would cancel the factor of this
  gradient, so `apply='gradient'` is refused there. The proximal form shrinks weights after each
  update, as AdamW does with weight decay. Filters alone do not silence the channels of a batch
  norm; with `over='group'`, `GReg` shrinks the norm scales as well, and the cut is free.
- `GradDecay` brings values to zero itself, under every optimizer.
- `ActivationSparsity` is a part of the loss, and lowers activations under every optimizer. It has
  no form, and does not silence channels before a cut.
"""


def section(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the section, with a line for each result."""
    return _SECTION.format(faster=FASTER, table='\n'.join(_table(results))).rstrip()


def _table(results: Mapping[str, Mapping[str, Any]]) -> list[str]:
    titles = ['regularizer', 'optimizer', 'form', 'strength', 'measured']
    titles += ['accuracy before the cut', 'after it', 'calibrated']
    lines = ['| ' + ' | '.join(titles) + ' |', '|---' * len(titles) + '|']
    for name, result in results.items():
        figures = ', '.join(_figure(*item) for item in result['figures'].items())
        accuracies = [f'{accuracy:.2f}' for accuracy in result['accuracy']]
        cells = [*name.split(' | '), _strength_text(result['strength']), figures, *accuracies]
        lines.append('| ' + ' | '.join(cells) + ' |')
    return lines


def _figure(name: str, value: float) -> str:
    return f'{name} {value:.0%}' if name == 'at zero' else f'{name} {value:.2g}'


def _strength_text(strength: Any) -> str:
    if isinstance(strength, Mapping):
        return ', '.join(f'{name} {value:g}' for name, value in strength.items())
    return '' if strength is None else f'{strength:.2g}'
