"""The formulas of regularizers, in double precision and one parameter at a time.

They share no code with the regularizers: benchmarks/gpu_regularizers.py compares the two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from easypruner.graph import ChannelGraph, Masks

STRENGTH = 0.1
LEARNING_RATE = 0.05
MOMENTUM = 0.9
UPDATES = 4
"""The announced length of the training whose first update is checked."""

Values = dict[str, Tensor]
"""Parameter -> value or gradient, float64."""


@dataclass(frozen=True)
class Setup:
    """A network whose channels are pushed.

    Attributes:
        graph: its channel graph.
        masks: True = keep.
        momentum: that of the optimizer if it is SGD, else 0.
        device: that of the network.
    """

    graph: ChannelGraph
    masks: Masks
    momentum: float
    device: torch.device

    @property
    def scales(self) -> list[str]:
        """The names of all scales of batch norms."""
        operands = self.graph.operands.items()
        return [name for name, operand in operands if operand == 'batch_norm.weight']

    def removed(self, operand: str) -> dict[str, Tensor]:
        """Return parameter -> True for the entries of removed channels, for one kind."""
        found: dict[str, Tensor] = {}
        for name, group in self.graph.groups.items():
            for member in group.members:
                if self.graph.operands.get(member.param) == operand:
                    size = len(self.graph.parameter(member.param))
                    none = torch.zeros(size, dtype=torch.bool, device=self.device)
                    entries = found.setdefault(member.param, none)
                    index = member.index.to(self.device)
                    entries[index[self.goes(name)].flatten()] = True
        return found

    def goes(self, group: str) -> Tensor:
        """Return True for the units of a group that masks remove."""
        return ~self.masks[group].to(self.device)

    def filters(self) -> Iterator[tuple[str, Tensor, str]]:
        """Yield group, units and weight for each weight that makes a group's channels."""
        for name, group in self.graph.groups.items():
            for member in group.producers:
                yield name, member.index, member.param


Penalty = Callable[[Values, Setup], Tensor]
"""Returns a scalar, whose gradient is added to that of the loss."""
Rule = Callable[[Values, Values, Setup], tuple[Values, Values]]
"""Changes values and gradients, before or after the optimizer's update."""


def unchanged(values: Values, gradients: Values, setup: Setup) -> tuple[Values, Values]:
    """Return values and gradients as they are."""
    return values, gradients


def gradient_of(penalty: Penalty) -> Rule:
    """Return the rule that adds the gradient of a penalty."""

    def rule(values: Values, gradients: Values, setup: Setup) -> tuple[Values, Values]:
        leaves = {name: value.clone().requires_grad_() for name, value in values.items()}
        added = torch.autograd.grad(
            penalty(leaves, setup), [*leaves.values()], materialize_grads=True
        )
        pairs = zip(values, added, strict=True)
        return values, {name: gradients[name] + gradient for name, gradient in pairs}

    return rule


def global_l1(values: Values, setup: Setup) -> Tensor:
    """The sum of all scales."""
    return STRENGTH * sum(values[name].abs().sum() for name in setup.scales)


def global_l2(values: Values, setup: Setup) -> Tensor:
    """Half the sum of squares of all scales."""
    return STRENGTH / 2 * sum(values[name].square().sum() for name in setup.scales)


def masked_l1(values: Values, setup: Setup) -> Tensor:
    """The sum of the scales that masks remove."""
    removed = setup.removed('batch_norm.weight')
    return STRENGTH * sum(values[name][entries].abs().sum() for name, entries in removed.items())


def polarization(values: Values, setup: Setup) -> Tensor:
    """Equation 2 of the paper, with t = 1.2."""
    scales = torch.cat([values[name] for name in setup.scales])
    return STRENGTH * (1.2 * scales.abs() - (scales - scales.mean()).abs()).sum()


def hoyer_scales(values: Values, setup: Setup) -> Tensor:
    """Equation 3 of the paper."""
    return STRENGTH * sum(_hoyer(values[name]) for name in setup.scales)


def hoyer_weights(values: Values, setup: Setup) -> Tensor:
    """Equation 4 of the paper, over filters."""
    filters = setup.filters()
    return STRENGTH * sum(
        _hoyer(_squares(values[name], units).sqrt()) for _, units, name in filters
    )


def _hoyer(values: Tensor) -> Tensor:
    return values.abs().sum().square() / values.square().sum()


def growing_l2(values: Values, setup: Setup) -> Tensor:
    """The penalty of GReg in its first updates."""
    total = torch.zeros((), dtype=torch.float64, device=setup.device)
    for group, units, name in setup.filters():
        total = total + _squares(values[name], units)[setup.goes(group)].sum()
    return STRENGTH / 2 * total


def group_lasso(values: Values, setup: Setup) -> Tensor:
    """The sum of the norms of units."""
    return STRENGTH * sum(squares.sqrt().sum() for squares in _by_group(values, setup).values())


def masked_group_lasso(values: Values, setup: Setup) -> Tensor:
    """The sum of the norms of the units that masks remove."""
    groups = _by_group(values, setup).items()
    return STRENGTH * sum(squares[setup.goes(name)].sqrt().sum() for name, squares in groups)


def depgraph(values: Values, setup: Setup) -> Tensor:
    """The group lasso over coupled layers with the exponent alpha = 4."""
    total = torch.zeros((), dtype=torch.float64, device=setup.device)
    for group in setup.graph.groups.values():
        trained = [member for member in group.members if member.param in values]
        squares = sum(_squares(values[m.param], m.index, m.dim) for m in trained)
        most, least = squares.detach().max(), squares.detach().min()
        gamma = torch.exp2(4 * (most - squares.detach()) / (most - least))
        total = total + (gamma * squares).sum()
    return STRENGTH / 2 * total


def _by_group(values: Values, setup: Setup) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for group, units, name in setup.filters():
        found[group] = found.get(group, 0) + _squares(values[name], units)
    return found


def _squares(weight: Tensor, units: Tensor, dim: int = 0) -> Tensor:
    """Return the sum of squares of each unit of a weight."""
    along = weight.movedim(dim, 0).flatten(1) if weight.dim() > 1 else weight[:, None]
    return along.square().sum(1)[units.to(weight.device)].sum(1)


def smooth_l1(values: Values, gradients: Values, setup: Setup) -> tuple[Values, Values]:
    """The gradient scale / lr, at most the strength."""
    pushed = {
        name: gradients[name] + (values[name] / LEARNING_RATE).clamp(-STRENGTH, STRENGTH)
        for name in setup.scales
    }
    return values, gradients | pushed


def decay(values: Values, gradients: Values, setup: Setup) -> tuple[Values, Values]:
    """The first of two updates of GradDecay: values and gradients are halved."""
    values, gradients = dict(values), dict(gradients)
    for operand in ('batch_norm.weight', 'batch_norm.bias'):
        for name, entries in setup.removed(operand).items():
            factor = torch.where(entries, 0.5, 1.0)
            values[name], gradients[name] = values[name] * factor, gradients[name] * factor
    return values, gradients


def soft_masked(values: Values, gradients: Values, setup: Setup) -> tuple[Values, Values]:
    """Soft thresholding of the removed scales and biases, by lr * strength / (1 - momentum)."""
    values, distance = dict(values), _distance(setup)
    for operand in ('batch_norm.weight', 'batch_norm.bias'):
        for name, entries in setup.removed(operand).items():
            near = (values[name].abs() - distance).clamp(min=0) * values[name].sign()
            values[name] = torch.where(entries, near, values[name])
    return values, gradients


def soft_units(values: Values, gradients: Values, setup: Setup) -> tuple[Values, Values]:
    """Soft thresholding of the norms of removed units."""
    values, distance = dict(values), _distance(setup)
    norms = {name: squares.sqrt() for name, squares in _by_group(values, setup).items()}
    for group, units, name in setup.filters():
        left = torch.where(setup.goes(group), (1 - distance / norms[group]).clamp(min=0), 1.0)
        factor = torch.ones(len(values[name]), dtype=torch.float64, device=setup.device)
        factor[units.to(setup.device)] = left[:, None]
        values[name] = values[name] * factor.view([-1] + [1] * (values[name].dim() - 1))
    return values, gradients


def _distance(setup: Setup) -> float:
    return LEARNING_RATE * STRENGTH / (1 - setup.momentum)


@dataclass(frozen=True)
class Case:
    """A regularizer, and what it must do around an update of the optimizer.

    Attributes:
        config: the regularizer.
        before: what it does before the update.
        after: what it does after the update.
        under_adaptive: whether it holds under optimizers that divide gradients, as AdamW.
    """

    config: Mapping[str, Any]
    before: Rule = unchanged
    after: Rule = unchanged
    under_adaptive: bool = True


def _selecting(penalty: Penalty, **config: Any) -> Case:
    return Case({'strength': STRENGTH, 'apply': 'gradient', **config}, gradient_of(penalty))


def _shrinking(penalty: Penalty, **config: Any) -> Case:
    return replace(_selecting(penalty, **config), under_adaptive=False)


CASES: dict[str, Case] = {
    'GlobalSparsity, l1': _selecting(global_l1, type='GlobalSparsity'),
    'GlobalSparsity, l2': _shrinking(global_l2, type='GlobalSparsity', norm='l2'),
    'GlobalSparsity, smooth l1': Case(
        dict(type='GlobalSparsity', strength=STRENGTH, norm='smooth_l1'),
        smooth_l1,
    ),
    'MaskSparsity': _shrinking(masked_l1, type='MaskSparsity'),
    'MaskSparsity, proximal': Case(
        dict(type='MaskSparsity', strength=STRENGTH, apply='proximal'), after=soft_masked
    ),
    'GradDecay': Case(dict(type='GradDecay'), decay),
    'Polarization': _selecting(polarization, type='Polarization'),
    'HoyerSquare': _selecting(hoyer_scales, type='HoyerSquare'),
    'HoyerSquare, weights': _selecting(hoyer_weights, type='HoyerSquare', on='weights'),
    'GReg': _shrinking(growing_l2, type='GReg'),
    'GroupLasso': _shrinking(group_lasso, type='GroupLasso'),
    'GroupLasso, masked': _shrinking(masked_group_lasso, type='GroupLasso', masked=True),
    'GroupLasso, masked, proximal': Case(
        dict(type='GroupLasso', strength=STRENGTH, masked=True, apply='proximal'), after=soft_units
    ),
    'GroupLasso, alpha': _shrinking(depgraph, type='GroupLasso', over='group', alpha=4.0),
}
"""All regularizers of parameters; that of activations is in :func:`activation_penalty`."""


class Activations:
    """The L1 norm of activations, where layers read the channels of groups.

    Args:
        graph: the channel graph of the network.
    """

    def __init__(self, graph: ChannelGraph) -> None:
        self._means: list[Tensor] = []
        self._hooks = []
        for group in graph.groups.values():
            for member in group.members:
                layer = graph.model.get_submodule(member.module)
                if member.dim == 1 and isinstance(layer, nn.Conv2d | nn.Linear):
                    hook = self._hook(member.index.flatten())
                    self._hooks.append(layer.register_forward_pre_hook(hook))

    def _hook(self, channels: Tensor) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def watch(layer: nn.Module, args: tuple[Any, ...]) -> None:
            read = args[0].index_select(1, channels.to(args[0].device)).float().abs()
            self._means.append(read.transpose(0, 1).flatten(1).mean(1).sum())

        return watch

    def penalty(self) -> Tensor:
        """Return the penalty on the forward passes since the last call."""
        means, self._means = self._means, []
        return STRENGTH * torch.stack(means).sum()

    def close(self) -> None:
        """Remove the hooks."""
        for hook in self._hooks:
            hook.remove()
