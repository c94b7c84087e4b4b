"""Gradients of the training loss, for scores; the model is left exactly as it was."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from easypruner.base.checks import check_name
from easypruner.base.describe import describe
from easypruner.base.randomness import fixed_seed
from easypruner.errors import ConfigError, EasyPrunerError
from easypruner.graph import ChannelGraph, Member
from easypruner.graph.recording.parametrized import computed_weights
from easypruner.graph.recording.stand_ins import Rehearsal, without_fast_path
from easypruner.strategies.context import Context
from easypruner.strategies.measures.samples import samples_of
from easypruner.strategies.measures.units import (
    OVER,
    gates,
    measured,
    stacked,
    unit_sums,
    wide,
)

Named = Mapping[str, Tensor]
"""Parameter -> a tensor in its shape."""

FORMS = ('weight', 'gate')
"""What stands for a unit: each of its weights, or a gate, a factor of 1 on its channels."""

_DIVERGED = 'look at the data, and whether the training before has diverged'


@contextlib.contextmanager
def stand_ins(
    model: nn.Module, names: Collection[str], make: Callable[[str, Tensor], Tensor]
) -> Iterator[dict[str, Tensor]]:
    """Let a model compute on other tensors than its own, in evaluation mode and with gradients.

    Afterwards all that its modules hold is what it was: parameters and what they require, buffers,
    modes, attributes. Its gradients and hooks on its parameters are not touched.

    A weight that is computed from other tensors has a stand-in of its own, unless one of these is
    among ``names``.

    Args:
        model: a network.
        names: of the tensors that require gradients meanwhile; no others do.
        make: of the name of a parameter, buffer or computed weight, and that tensor -> what stands
            in for it, without a history.

    Yields:
        Under the names of ``names``, what stands in.
    """
    with torch.inference_mode(False), torch.enable_grad(), without_fast_path():
        rehearsal = Rehearsal(model)
        tensors: dict[str, Tensor] = {}
        for name, tensor in rehearsal.tensors.items():
            other = make(name, tensor).requires_grad_(name in names)
            if isinstance(tensor, nn.Parameter):
                other = nn.Parameter(other, requires_grad=name in names)
            tensors[name] = other
        held = {}
        for name, computed in computed_weights(model).items():
            if computed.sources.keys().isdisjoint(names):
                tensors[name] = make(name, computed.value()).requires_grad_(name in names)
                held[name] = computed
        with rehearsal.with_tensors(tensors, training=False):
            for name, computed in held.items():
                computed.hold(tensors[name])
            # Again, for what recurrent layers list of their weights.
            rehearsal.swap(tensors)
            yield {name: tensors[name] for name in names}


def mean_over_batches(
    graph: ChannelGraph,
    context: Context,
    names: Collection[str],
    measure: Callable[[Tensor, Named], Mapping[str, Tensor]],
    batches: int,
    requested_by: str,
    by_sample: bool = False,
) -> dict[str, Tensor]:
    """Return the mean over batches of training data of something of the loss on each.

    The model runs in evaluation mode, so that batch norms do not mix samples. It does not matter
    which parameters require gradients. All chance is the context's. Without ``names`` there is
    nothing to differentiate, and the result is empty.

    Args:
        graph: of the model.
        context: has the batches and the loss.
        names: of the parameters that ``measure`` differentiates with respect to.
        measure: of the loss and name -> parameter -> a tensor under each of its names.
        batches: how many.
        requested_by: the name of the component that needs them, for messages.
        by_sample: whether each sample of a batch is measured by itself.

    Raises:
        ConfigError: the context has no loss, or no batches.
        EasyPrunerError: the data set is empty, a batch cannot be taken apart, or the loss is not a
            finite number or has no gradient.
    """
    loss = context.needed('loss', requested_by)
    if not names:
        return {}

    def stand_in(name: str, tensor: Tensor) -> Tensor:
        # The forward may write to buffers.
        return tensor.detach() if isinstance(tensor, nn.Parameter) else tensor.detach().clone()

    sums: dict[str, Tensor] = {}
    count = 0
    with stand_ins(graph.model, names, stand_in) as leaves, fixed_seed(context.seed):
        for batch in context.some_batches(batches, requested_by):
            for part in samples_of(batch, requested_by) if by_sample else (batch,):
                value = loss(graph.model, part)
                _check_loss(value, graph, requested_by)
                for name, measured in measure(value, leaves).items():
                    own = measured.detach().cpu().double()
                    sums[name] = sums[name] + own if name in sums else own
                count += 1
    return {name: total / count for name, total in sums.items()}


def _check_loss(value: Any, graph: ChannelGraph, requested_by: str) -> None:
    if not isinstance(value, Tensor) or value.numel() != 1:
        raise EasyPrunerError(
            f'{requested_by} needs the gradient of the training loss, but the loss it was given '
            f'returns {describe(value)}; expected a tensor of one number, such as '
            'the mean over the samples, without item() or float()'
        )
    check_finite(value, graph, f'{requested_by} needs the training loss', _DIVERGED)
    if not value.requires_grad:
        raise EasyPrunerError(
            f'{requested_by} needs the gradient of the training loss, but the loss it was given '
            'has none; compute it with gradients enabled, and do not detach it'
        )


def check_finite(value: Tensor, graph: ChannelGraph, what: str, otherwise: str) -> None:
    """Raise EasyPrunerError if a value that was computed by the network is not a finite number.

    Args:
        value: a scalar.
        graph: of the network; the first group with damaged weights is named.
        what: needs the value, for the message.
        otherwise: what to look at if no weight of a group is damaged.
    """
    if bool(torch.isfinite(value.detach())):
        return
    message = f'{what}, but that is {float(value.detach()):g}'
    # A weight that makes channels of one group reads those of another: the first is to be named.
    for role in ('out', 'in'):
        for name, group in graph.groups.items():
            for member in group.members:
                bad = int(graph.parameter(member.param).isnan().sum())
                if bad and member.role == role:
                    raise EasyPrunerError(
                        f'{message}: group {name!r} has {bad} entries in {member.param!r} that '
                        'are NaN; the training before has diverged, or the weights are damaged'
                    )
    raise EasyPrunerError(f'{message}, though no weight of a group is NaN; {otherwise}')


def slopes(loss: Tensor, leaves: Named, create_graph: bool = False) -> dict[str, Tensor]:
    """Return name -> gradient of the loss, zeros where a parameter has no part in it."""
    found = torch.autograd.grad(
        loss, list(leaves.values()), create_graph=create_graph, materialize_grads=True
    )
    return dict(zip(leaves, found, strict=True))


class SquaredProducts:
    """Squares of weight times gradient, by unit: what a loss changes by, in first order.

    Args:
        form: a name of :data:`FORMS`. ``'weight'``: the sum of (g * w)^2 over the weights of a
            unit. ``'gate'``: (sum of g * w)^2 over all that is linear in a gate on the unit.
        over: the weights that count in the weight form: a name of
            :data:`easypruner.strategies.measures.units.OVER`.
        owner: whose arguments they are, for messages.

    Raises:
        ConfigError: a name that is not known, or ``over='group'`` for gates.
    """

    def __init__(self, form: str, over: str, owner: str) -> None:
        self.form = check_name(form, 'form', owner, FORMS)
        self.over = check_name(over, 'over', owner, OVER)
        self.owner = owner
        if form == 'gate' and over != 'producers':
            raise ConfigError(
                f"over={over!r} of {owner} says whose weights count; form='gate' takes those that "
                "a gate multiplies: leave it out, or use form='weight'"
            )

    def mean(
        self, graph: ChannelGraph, context: Context, batches: int, by_sample: bool = False
    ) -> dict[str, Tensor]:
        """Return group -> their mean, ``(layers, units)``, or ``(units,)`` over a whole group.

        Args and errors are those of :func:`mean_over_batches`.
        """
        if self.form == 'gate':
            gated = gates(graph)
            every = [member for own in gated.values() for gate in own for member in gate]
        else:
            members = measured(graph, self.over)
            every = [member for own in members.values() for member in own]

        def measure(loss: Tensor, leaves: Named) -> dict[str, Tensor]:
            products = {
                name: wide(slope) * wide(leaves[name].detach())
                for name, slope in slopes(loss, leaves).items()
            }
            if self.form == 'gate':
                return {name: _gate_squares(products, own) for name, own in gated.items()}
            squares = {name: product.square() for name, product in products.items()}
            return stacked(members, self.over, lambda m: unit_sums(squares[m.param], m))

        names = dict.fromkeys(member.param for member in every)
        return mean_over_batches(graph, context, names, measure, batches, self.owner, by_sample)


def _gate_squares(products: Named, gates: Sequence[Sequence[Member]]) -> Tensor:
    """Return the squared gradient of each gate, ``(gates, units)``."""
    sums = [torch.stack([unit_sums(products[m.param], m).cpu() for m in gate]) for gate in gates]
    return torch.stack([each.sum(dim=0) for each in sums]).double().square()
