"""Gradients of the training loss, for scores, by batch or by sample. The model stays unchanged."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from easypruner.base.describe import describe
from easypruner.base.randomness import fixed_seed
from easypruner.errors import EasyPrunerError
from easypruner.graph import ChannelGraph
from easypruner.graph.recording.inventory import StandIns, without_fast_path
from easypruner.graph.recording.parametrized import computed_weights
from easypruner.strategies.context import Context

NamedTensors = Mapping[str, Tensor]
"""Name of a parameter -> a tensor in its shape."""

_DIVERGED = 'check the data, and whether the previous training has diverged'


@contextlib.contextmanager
def substituted_tensors(
    model: nn.Module, names: Collection[str], make: Callable[[str, Tensor], Tensor]
) -> Iterator[dict[str, Tensor]]:
    """Let a model compute with other tensors, in evaluation mode and with gradients enabled.

    When the block ends, all parameters, buffers, training modes and attributes are restored.
    Gradients of parameters and hooks on them are not touched.

    A weight that is computed from other tensors gets a substitute of its own, unless one of these
    tensors is among ``names``.

    Args:
        model: the network.
        names: the names of the tensors that require gradients within the block; no others do.
        make: a function of the name of a parameter, buffer or computed weight and its tensor ->
            the substitute, without a gradient history.

    Yields:
        name -> substitute, for each of ``names``.
    """
    with torch.inference_mode(False), torch.enable_grad(), without_fast_path():
        stand_ins = StandIns(model)
        tensors: dict[str, Tensor] = {}
        for name, tensor in stand_ins.tensors.items():
            substitute = make(name, tensor).requires_grad_(name in names)
            if isinstance(tensor, nn.Parameter):
                substitute = nn.Parameter(substitute, requires_grad=name in names)
            tensors[name] = substitute
        replaced = {}
        for name, computed in computed_weights(model).items():
            if computed.sources.keys().isdisjoint(names):
                tensors[name] = make(name, computed.value()).requires_grad_(name in names)
                replaced[name] = computed
        with stand_ins.with_tensors(tensors, training=False):
            for name, computed in replaced.items():
                computed.substitute(tensors[name])
            # Again, for the weights that recurrent layers list themselves.
            stand_ins.swap(tensors)
            yield {name: tensors[name] for name in names}


def mean_over_batches(
    graph: ChannelGraph,
    context: Context,
    names: Collection[str],
    measure: Callable[[Tensor, NamedTensors], Mapping[str, Tensor]],
    batches: int,
    requested_by: str,
    by_sample: bool = False,
) -> dict[str, Tensor]:
    """Return the mean, over batches of training data, of a measure of the loss.

    The model runs in evaluation mode, so that batch norms do not mix samples. The result does not
    depend on which parameters require gradients. All random numbers are drawn with the context's
    seed. If ``names`` is empty, so is the result.

    Args:
        graph: the channel graph of the model.
        context: the source of batches and loss.
        names: the names of the parameters with respect to which ``measure`` differentiates.
        measure: a function of the loss and of name -> parameter; it returns named tensors.
        batches: the number of batches.
        requested_by: the name of the component, for messages.
        by_sample: whether to measure each sample of a batch by itself.

    Raises:
        ConfigError: the context has no loss or no batches.
        EasyPrunerError: the data set is empty, a batch cannot be split, or the loss is not a
            finite number or has no gradient.
    """
    loss = context.needed('loss', requested_by)
    if not names:
        return {}

    def substitute(name: str, tensor: Tensor) -> Tensor:
        # The forward pass may write to buffers.
        return tensor.detach() if isinstance(tensor, nn.Parameter) else tensor.detach().clone()

    sums: dict[str, Tensor] = {}
    count = 0
    with substituted_tensors(graph.model, names, substitute) as leaves, fixed_seed(context.seed):
        for batch in context.some_batches(batches, requested_by):
            for part in samples_of(batch, requested_by) if by_sample else (batch,):
                value = loss(graph.model, part)
                _check_loss(value, graph, requested_by)
                for name, measured in measure(value, leaves).items():
                    measured = measured.detach().cpu().double()
                    sums[name] = sums[name] + measured if name in sums else measured
                count += 1
    return {name: total / count for name, total in sums.items()}


def _check_loss(value: Any, graph: ChannelGraph, requested_by: str) -> None:
    if not isinstance(value, Tensor) or value.numel() != 1:
        raise EasyPrunerError(
            f'{requested_by} needs the gradient of the training loss, but the loss returns '
            f'{describe(value)}; expected a tensor with a single number, such as the mean over '
            'the samples, without item() or float()'
        )
    check_finite(value, graph, f'{requested_by} needs the training loss', _DIVERGED)
    if not value.requires_grad:
        raise EasyPrunerError(
            f'{requested_by} needs the gradient of the training loss, but the loss does not have '
            'one; compute it with gradients enabled, and do not detach it'
        )


def check_finite(value: Tensor, graph: ChannelGraph, subject: str, advice: str) -> None:
    """Raise EasyPrunerError if a value that the network computed is not a finite number.

    Args:
        value: a scalar.
        graph: the channel graph of the network; the message names a group with damaged weights.
        subject: who needs which value, for the message.
        advice: the advice for a network without damaged weights.
    """
    if bool(torch.isfinite(value.detach())):
        return
    message = f'{subject}, but that is {float(value.detach()):g}'
    # A weight belongs to the group whose channels it produces, and to the group that it reads.
    # Name the former.
    for role in ('out', 'in'):
        for name, group in graph.groups.items():
            for member in group.members:
                bad = int(graph.parameter(member.param).isnan().sum())
                if bad and member.role == role:
                    raise EasyPrunerError(
                        f'{message}: group {name!r} has {bad} NaN entries in {member.param!r}; '
                        'the previous training has diverged, or the weights are damaged'
                    )
    raise EasyPrunerError(f'{message}, although no weight of a group is NaN; {advice}')


def gradients_of(
    loss: Tensor, leaves: NamedTensors, create_graph: bool = False
) -> dict[str, Tensor]:
    """Return name -> gradient of the loss; zeros if the loss does not depend on a parameter."""
    found = torch.autograd.grad(
        loss, list(leaves.values()), create_graph=create_graph, materialize_grads=True
    )
    return dict(zip(leaves, found, strict=True))


def samples_of(batch: Any, requested_by: str) -> list[Any]:
    """Split a batch into batches of one sample, with the same structure.

    Args:
        batch: a tensor, a tuple or list of tensors, or a dict of tensors and lists. All have one
            entry for each sample in their first dimension. None stays None.
        requested_by: the name of the component that needs the samples, for messages.

    Raises:
        EasyPrunerError: the batch has another structure, or its parts differ in length.

    >>> import torch
    >>> samples_of({'inputs': torch.tensor([[1.0], [2.0]]), 'names': ['a', 'b']}, 'Fisher')[1]
    {'inputs': tensor([[2.]]), 'names': ['b']}
    """
    listed = isinstance(batch, tuple | list)
    columns = batch if listed else [batch]
    parts = dict(batch if isinstance(batch, Mapping) else enumerate(columns))
    given = [part for part in parts.values() if part is not None]
    # A list within a list may hold samples or their labels; this cannot be decided.
    split = all(
        part.dim() if isinstance(part, Tensor) else isinstance(part, list) and not listed
        for part in given
    )
    if not split or len({len(part) for part in given}) != 1:
        raise EasyPrunerError(
            f'{requested_by} measures single samples, but cannot split a batch that is '
            f'{describe(batch)}; expected a tensor, a tuple of tensors or a dict of tensors and '
            "lists, each with one entry for each sample; per='batch' does not split the batch"
        )
    return [_sample(batch, parts, number) for number in range(len(given[0]))]


def _sample(batch: Any, parts: Mapping[Any, Any], number: int) -> Any:
    own = {key: None if p is None else p[number : number + 1] for key, p in parts.items()}
    if isinstance(batch, Mapping):
        return own
    if isinstance(batch, tuple | list):
        values: list[Any] = list(own.values())
        return type(batch)(*values) if hasattr(batch, '_fields') else type(batch)(values)
    return own[0]
