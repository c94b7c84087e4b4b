"""The page docs/regularizers.md."""

from __future__ import annotations

import importlib.metadata
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from coverage_page import machine

_TEMPLATE = """# Regularizers

Written by `benchmarks/regularizer_overhead.py`, with torch {torch} on {machine}.

A regularizer pushes channels towards zero while a `Train` stage trains. It adds its gradient right
before every optimizer update, or moves the parameters right after it; [push.md](push.md) says when.
This does not depend on gradient accumulation, clipping or loss scaling, and the loss stays the
same. The card of each regularizer says when to use it and has its arguments and examples.

In the table, λ is the `strength`, g a norm scale, a the activations of a channel, and θ_u all
weights of unit u. *Removed* channels are those that masks remove.

| regularizer | penalty | source |
|---|---|---|
{formulas}

A regularizer of removed channels needs masks: put a `SelectMask` or `LoadMask` stage before. Only
trainable parameters are pushed.

| argument | what it does |
|---|---|
| `apply` | `'gradient'` or `'proximal'`; by default what holds under the optimizer of the stage |
| `strength=dict(until=1e-3)` | raises the strength of each group until what must go to zero is \
below the value; for `MaskSparsity` with `norm='l1'` and `GroupLasso` |
| `strength=dict(reach=5)` | chooses the strength from the schedule, so that the penalty alone can \
move a scale by 5 over the stage. For `l2` penalties and `GReg`, the reach is an exponent, and \
exp(-5) of a value remains |
| `strength_schedule` | multiplies the strength over the stage: `'linear'` and `'cosine'` from 0 \
to 1, `'warmup'` over the first tenth, or `dict(warmup=0.2)` |
| `group_strengths=dict(layer4=2.0)` | multiplies the strength in the groups that a path, a glob \
or a name matches |
| `Train(regularize_every=16)` | pushes at every 16th update only, but 16 times as strongly (lazy \
regularization, Karras et al., 2020, 1912.04958, section 3.1). Over the stage, this is the same \
push in a sixteenth of the time. For quadratic penalties, keep 16 · lr · λ well below 1. The study \
`benchmarks/lazy_push_study.py` measures what this costs in accuracy |

## Cost

The time that a regularizer adds to `optimizer.step()` on {network}: SGD with momentum,
`foreach=True`, one thread, with gradients, and with masks that remove half of each group. Steps
with and without the regularizer alternate. The result is the median of their differences in CPU
time, over {pairs} pairs and {rounds} rounds, with the lowest and the highest of the rounds. The
step alone takes {step:.1f} ms, without forward and backward passes.

| regularizer | added, ms | share of the step | rounds |
|---|---|---|---|
{costs}

*Loop* is the implementation of EasyPruner 1.0 and of the released code of network slimming: a
Python loop over the modules of the network. Regularizers of norm scales add at most {scales:.1f} %.
The others read all weights and write all gradients. The step itself reads weights, gradients and
momentum, and writes weights and momentum. Both are limited by memory bandwidth, so such a
regularizer cannot take much less time than the step. With `over='group'`, each weight is read
twice: for the channels that it produces, and for those that it reads. *Every {every} updates* is
the time with `regularize_every={every}`, averaged over the updates: at most {lazy:.1f} %.

`ActivationSparsity` acts on forward passes. On a {passes}, it
adds {pass_added:.1f} ms to {pass_step:.0f} ms, which is {pass_share:.1f} %
({pass_low:.1f} to {pass_high:.1f} % in the rounds).
"""

_FORMULAS = {
    'GlobalSparsity': 'λ Σ abs(g) over all scales; `l2`: λ/2 Σ g²; `smooth_l1`: λ Σ abs(g), but '
    'g²/(2 lr) for abs(g) below lr · λ',
    'MaskSparsity': 'as GlobalSparsity, over the scales of removed channels only',
    'GroupLasso': 'λ Σ ‖θ_u‖₂ over the units; with `alpha`: λ/2 Σ c_u I_u, I_u = ‖θ_u‖₂², '
    'c_u = 2^(alpha · (I_max - I_u)/(I_max - I_min)) within a group',
    'GradDecay': 'none: removed scales and biases shrink linearly to zero over `share` of the '
    'stage, and so do their gradients',
    'GReg': 'f/2 Σ w² over the weights of removed units; f grows by λ every `every` updates, up to '
    '`ceiling`',
    'Polarization': 'λ Σ (t abs(g) - abs(g - mean of all g)) over all scales',
    'HoyerSquare': 'λ Σ over layers (Σ abs(v))²/Σ v², where v are the scales of a layer or the '
    'norms of its filters',
    'ActivationSparsity': 'λ Σ over channels of the mean of abs(a), added to the loss',
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
    'ActivationSparsity': 'Georgiadis, 2019, 1812.04056',
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


def page(
    network: str,
    pairs: int,
    every: int,
    found: Mapping[str, Sequence[Measured]],
    passes: Sequence[Measured],
    what: str,
) -> str:
    """Return the page.

    Args:
        network: the name of the network.
        pairs: the number of pairs of steps in a round.
        every: the number of updates between pushes, for those that do not push at each update.
        found: regularizer -> its rounds.
        passes: the rounds of ActivationSparsity.
        what: the passes that these were measured on.
    """
    shares = sorted(100 * r.share for r in passes)
    rounds = next(iter(found.values()))
    return _TEMPLATE.format(
        torch=importlib.metadata.version('torch'),
        machine=machine(),
        formulas='\n'.join(
            f'| [`{name}`](strategies/{name}.md) | {formula} | {_SOURCES[name]} |'
            for name, formula in _FORMULAS.items()
        ),
        network=network,
        pairs=pairs,
        every=every,
        rounds=len(rounds),
        step=statistics.median(r.step for several in found.values() for r in several),
        scales=_most(found, lambda name: on_scales(name) and 'loop' not in name),
        lazy=_most(found, lambda name: 'updates' in name),
        costs='\n'.join(_cost(name, several) for name, several in found.items()),
        passes=what,
        pass_added=statistics.median(r.added for r in passes),
        pass_step=statistics.median(r.step for r in passes),
        pass_share=100 * _share(passes),
        pass_low=shares[0],
        pass_high=shares[-1],
    )


def row(rounds: Sequence[Measured]) -> dict[str, float]:
    """Return the medians of some rounds, for JSON."""
    return {
        'added_ms': round(statistics.median(r.added for r in rounds), 4),
        'step_ms': round(statistics.median(r.step for r in rounds), 4),
        'share': round(_share(rounds), 5),
    }


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
