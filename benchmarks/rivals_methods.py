"""The methods of benchmarks/rivals.py: four of Torch-Pruning, and ours that do the same or better.

Torch-Pruning is used as its own script for CIFAR does (reproduce/main.py of its repository): no
weight decay while it regularizes, one global ranking, and small steps until the budget is met. Its
strengths are those of that script, times the ratio of the sums of the learning rates, so that the
whole push of a shorter training is the same. Methods of EasyPruner have the strengths of their
recipes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch_pruning as tp
from grid_network import Data
from rivals_train import Hooks, sum_of_rates, train
from torch import nn

import easypruner

_TORCH_PRUNING, _EASYPRUNER = 'Torch-Pruning', 'EasyPruner'
_STEPS = 400
_REG = 5e-4
_DELTA_REG = 1e-4
_EPOCHS = 100
_RATES = 390 * (60 * 0.01 + 20 * 0.001 + 20 * 0.0001)
"""The sum of the learning rates of Torch-Pruning's script, over 100 epochs of CIFAR."""


@dataclass(frozen=True)
class Run:
    """A run of a method.

    Attributes:
        network: the trained network, which is cut in place.
        data: its images.
        keep: the share of MACs that is left.
        seed: of the order of the images.
        epochs: of the training before the cut, for methods that push.
        lr: the learning rate of that training at its start.
        factor: multiplies the strength.
    """

    network: nn.Module
    data: Data
    keep: float
    seed: int
    epochs: int
    lr: float
    factor: float

    def train(self, hooks: Hooks, weight_decay: float | None = None) -> None:
        """Train before the cut."""
        decay = {} if weight_decay is None else {'weight_decay': weight_decay}
        train(self.network, self.data, self.epochs, self.seed, self.lr, hooks=hooks, **decay)


@dataclass(frozen=True)
class Method:
    """A method.

    Attributes:
        package: whose it is.
        prune: cuts the network of a run.
        pushes: whether it trains before the cut.
        scaled: whether it has a strength that a factor multiplies.
    """

    package: str
    prune: Callable[[Run], None]
    pushes: bool = False
    scaled: bool = False


def _torch_pruning(kind: Any, importance: Any, **strengths: float) -> Callable[[Run], None]:
    """Return a function that prunes with a pruner of Torch-Pruning.

    Args:
        kind: the class of the pruner.
        importance: how it ranks channels.
        **strengths: its arguments for the strength; none if it does not regularize.
    """

    def prune(run: Run) -> None:
        network, example = run.network, run.data.example
        whole = _macs(run)
        scale = run.factor * _RATES / sum_of_rates(run.epochs, len(run.data.images), run.lr)
        pruner = kind(
            network,
            example,
            importance=importance,
            global_pruning=True,
            pruning_ratio=1.0,
            iterative_steps=_STEPS,
            ignored_layers=[network.head],
            **_scaled(strengths, scale, run.epochs),
        )
        if strengths:
            growing = isinstance(pruner, tp.pruner.GrowingRegPruner)
            hooks = Hooks(
                backward=lambda: pruner.regularize(network),
                epoch=pruner.update_reg if growing else None,
            )
            run.train(hooks, weight_decay=0.0)
        network.eval()
        while _macs(run) > run.keep * whole and pruner.current_step < _STEPS:
            pruner.step()

    return prune


def _macs(run: Run) -> float:
    """Return the MACs as Torch-Pruning counts them, in the time that it takes."""
    macs, _ = tp.utils.count_ops_and_params(run.network, run.data.example)
    return float(macs)


def _scaled(strengths: Mapping[str, float], scale: float, epochs: int) -> dict[str, float]:
    """Return strengths for a shorter training; one that grows per epoch grows faster."""
    faster = {'delta_reg': _EPOCHS / epochs}
    return {name: value * scale * faster.get(name, 1) for name, value in strengths.items()}


@dataclass(frozen=True)
class Push:
    """A regularizer of EasyPruner.

    Attributes:
        regularizer: its name, or a dict with its arguments.
        strength: ``reach`` or ``until``; a reach is multiplied by the factor of a run.
        masked: whether it pushes what masks remove, so that they are selected before.
    """

    regularizer: Any
    strength: Mapping[str, float]
    masked: bool = False

    def train(self, run: Run, graph: Any, masks: Any) -> None:
        """Train the network of a run, and push meanwhile."""
        strength = {
            name: value * (run.factor if name == 'reach' else 1)
            for name, value in self.strength.items()
        }

        def start(optimizer: torch.optim.Optimizer, updates: int, scheduler: Any) -> None:
            options = dict(masks=masks, updates=updates, scheduler=scheduler, **strength)
            easypruner.regularize(run.network, optimizer, graph, self.regularizer, **options)

        run.train(Hooks(start=start))


def _ours(source: str, push: Push | None = None) -> Callable[[Run], None]:
    """Return a function that prunes with a mask source and a regularizer of EasyPruner."""

    def prune(run: Run) -> None:
        graph = easypruner.trace(run.network, run.data.example, limits=dict(round_to=1))
        chosen = getattr(easypruner.sources, source)(budget=easypruner.budgets.Macs(run.keep))
        if push is not None and not push.masked:
            push.train(run, graph, None)
        masks = chosen.select(graph, easypruner.Context(seed=run.seed))
        if push is not None and push.masked:
            push.train(run, graph, masks)
        easypruner.prune(run.network, masks, graph=graph)

    return prune


_MAGNITUDE = tp.importance.MagnitudeImportance(p=1)
_GROUP = tp.importance.GroupMagnitudeImportance(p=2)
_GROUP_MAX = tp.importance.GroupMagnitudeImportance(p=2, normalizer='max')
_PRUNERS = {
    'magnitude': _torch_pruning(tp.pruner.MagnitudePruner, _MAGNITUDE),
    'BN scale': _torch_pruning(
        tp.pruner.BNScalePruner, tp.importance.BNScaleImportance(), reg=_REG
    ),
    'group norm': _torch_pruning(tp.pruner.GroupNormPruner, _GROUP_MAX, reg=_REG),
    'growing reg': _torch_pruning(
        tp.pruner.GrowingRegPruner, _GROUP, reg=_REG, delta_reg=_DELTA_REG
    ),
}
_DEPGRAPH = {'type': 'GroupLasso', 'over': 'group', 'alpha': 4}
_GREG = {'type': 'GReg', 'ceiling': 1e3}
_PUSHES = {
    'GlobalSparsity': _ours('BNScale', Push('GlobalSparsity', {'reach': 2.5})),
    'GroupLasso': _ours('Group', Push(_DEPGRAPH, {'reach': 0.33})),
    'GReg': _ours('L1Norm', Push(_GREG, {'reach': 7.0}, masked=True)),
}
_SILENT = Push('MaskSparsity', {'until': 1e-3}, masked=True)
METHODS: dict[str, Method] = {
    **{
        f'TP {name}': Method(_TORCH_PRUNING, prune, *(2 * [name != 'magnitude']))
        for name, prune in _PRUNERS.items()
    },
    'L1Norm': Method(_EASYPRUNER, _ours('L1Norm')),
    **{name: Method(_EASYPRUNER, prune, True, True) for name, prune in _PUSHES.items()},
    'MaskSparsity': Method(_EASYPRUNER, _ours('L1Norm', _SILENT), pushes=True),
}
"""Name -> method; names that begin with TP are those of Torch-Pruning."""
