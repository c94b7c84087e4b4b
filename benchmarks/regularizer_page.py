"""The page docs/regularizers.md."""

from __future__ import annotations

import importlib.metadata
import inspect
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from coverage_page import machine

from easypruner.plugins.registry import REGULARIZERS

_TEMPLATE = """# Regularizers

Written by `benchmarks/regularizer_overhead.py`, with torch {torch} on {machine}.

A regularizer pushes channels towards zero while a `Train` stage trains. It adds its gradient right
before every optimizer update, once, whatever the accumulation, clipping or loss scaling; so no loss
has to be changed. λ is the `strength`, g a norm scale, θ_u all weights of unit u, and *removed*
what masks will take away.

| regularizer | penalty | source |
|---|---|---|
{formulas}

Those that speak of removed units need masks: a `SelectMask` or `LoadMask` stage before. Parameters
that do not train are left alone. `strength=dict(reach=5)` picks the strength from the schedule, so
that the penalty alone can move a scale by 5 over the stage; for penalties that are squares it is
the exponent, and what is left is exp(-5). `strength_schedule` multiplies the strength over the
stage by `'linear'`, `'cosine'` (both from 0 to 1), or `'warmup'` (over the first tenth, or
`dict(warmup=0.2)`). `group_strengths=dict(layer4=2.0)` multiplies it in the groups that a path, a
glob or a name fits.

`Train(regularizer=..., regularize_every=16)` pushes at every 16th update only, 16 times as
strongly (lazy regularization, Karras et al., 2020, 1912.04958, section 3.1). Over the stage that
adds up to the same push, at a sixteenth of the time. A penalty that is a square then takes
16 · lr · λ of a value at once: keep that well under 1.

## Arguments and their defaults

{defaults}

## What they cost

What one adds to `optimizer.step()` on {network}: SGD with momentum, `foreach=True`, one thread,
gradients set, masks that remove half of each group. A step with and a step without it take turns;
their difference counts, in CPU time of the process: the median of {pairs} pairs, and of {rounds}
rounds of these, with the least and the most of the rounds. The step alone takes {step:.1f} ms;
forward and backward passes are not in it.

| regularizer | adds, ms | of the step | rounds |
|---|---|---|---|
{costs}

*Loop* is the way of EasyPruner 1.0 and of the released code of network slimming: over the modules
of the network, in Python, once for each batch norm. What is on scales alone adds at most
{scales:.1f} %. The others read every weight of the network and write every gradient, where the
step itself reads weights, gradients and momentum, and writes the first and the last: like
it, they are bound by memory, and cannot be had at a tenth of its time at every update. With
`over='group'` a weight is gone over twice, for the channels it makes and for those it reads.
*Every {every} updates* is what `regularize_every={every}` adds, spread over the updates: at most
{lazy:.1f} %.
"""

_FORMULAS = {
    'GlobalSparsity': 'λ Σ abs(g) over all scales; `l2`: λ/2 Σ g²; `smooth_l1`: as the first, and '
    'g²/(2 lr) where abs(g) is under lr · λ',
    'MaskSparsity': 'as GlobalSparsity, over the scales of removed channels only',
    'GroupLasso': 'λ Σ ‖θ_u‖₂ over the units; with `alpha`: λ/2 Σ c_u I_u, I_u = ‖θ_u‖₂², '
    'c_u = 2^(alpha · (I_max - I_u)/(I_max - I_min)) in its group',
    'GradDecay': 'none: removed scales and biases go to zero on a straight line over `share` of '
    'the stage, while their own gradient fades out',
    'GReg': 'f/2 Σ w² over the weights of removed units; f grows by λ every `every` updates, up to '
    '`ceiling`',
    'Polarization': 'λ Σ (t abs(g) - abs(g - mean of all g)) over all scales',
    'HoyerSquare': 'λ Σ over layers (Σ abs(v))²/Σ v², v the scales of a layer or the norms of its '
    'filters',
}

_SOURCES = {
    'GlobalSparsity': 'network slimming, Liu et al., 2017, 1708.06519',
    'MaskSparsity': 'MaskSparsity, 2022, 2201.06776',
    'GroupLasso': 'Yuan and Lin, 2006; Wen et al., 2016, 1608.03665; with `alpha` DepGraph, Fang '
    'et al., 2023, 2301.12900',
    'GradDecay': 'EasyPruner 1.0',
    'GReg': 'GReg-1, Wang et al., 2021, 2012.09243',
    'Polarization': 'Zhuang et al., NeurIPS 2020',
    'HoyerSquare': 'DeepHoyer, Yang et al., 2020, 1908.09979',
}


@dataclass(frozen=True)
class Measured:
    """The result of one round.

    Attributes:
        added: the time that the regularizer adds to a step, in ms.
        step: the time of the step alone, in ms.
    """

    added: float
    step: float

    @property
    def share(self) -> float:
        """The added time as a share of the step."""
        return self.added / self.step


def page(network: str, pairs: int, every: int, found: Mapping[str, Sequence[Measured]]) -> str:
    """Return the page.

    Args:
        network: the name of the network.
        pairs: the number of pairs of steps in a round.
        every: the number of updates between pushes, for those that do not push at each update.
        found: regularizer -> its rounds.
    """
    rounds = next(iter(found.values()))
    return _TEMPLATE.format(
        torch=importlib.metadata.version('torch'),
        machine=machine(),
        formulas='\n'.join(
            f'| `{name}` | {formula} | {_SOURCES[name]} |' for name, formula in _FORMULAS.items()
        ),
        defaults='\n'.join(f'- `{name}{_arguments(name)}`' for name in _FORMULAS),
        network=network,
        pairs=pairs,
        every=every,
        rounds=len(rounds),
        step=statistics.median(r.step for several in found.values() for r in several),
        scales=_most(found, lambda name: on_scales(name) and 'loop' not in name),
        lazy=_most(found, lambda name: 'updates' in name),
        costs='\n'.join(_cost(name, several) for name, several in found.items()),
    )


def _arguments(name: str) -> str:
    kind = REGULARIZERS.get(name)
    parameters = inspect.signature(kind).parameters.values()
    bare = [p.replace(annotation=inspect.Parameter.empty) for p in parameters]
    return str(inspect.Signature(bare))


def on_scales(name: str) -> bool:
    """Return whether the regularizer of a row reads norm scales only, instead of all weights."""
    return not any(word in name for word in ('weights', 'GReg', 'GroupLasso'))


def _most(found: Mapping[str, Sequence[Measured]], chosen: Callable[[str], bool]) -> float:
    """Return the largest share of a step among some rows, in percent."""
    return 100 * max(_share(rounds) for name, rounds in found.items() if chosen(name))


def _share(rounds: Sequence[Measured]) -> float:
    return statistics.median(r.share for r in rounds)


def _cost(name: str, rounds: Sequence[Measured]) -> str:
    added = statistics.median(r.added for r in rounds)
    shares = sorted(100 * r.share for r in rounds)
    return (
        f'| {name} | {added:.2f} | {100 * _share(rounds):.1f} % '
        f'| {shares[0]:.1f} to {shares[-1]:.1f} % |'
    )
