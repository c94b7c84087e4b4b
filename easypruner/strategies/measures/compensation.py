"""Compensation: adds the mean contribution of removed channels to the biases that follow."""

from __future__ import annotations

import math
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from easypruner.base.distributed import average
from easypruner.graph import ChannelGraph, ChannelGroup
from easypruner.graph.recording.inventory import StandIns
from easypruner.graph.recording.tape import Operation, record
from easypruner.strategies.context import Context
from easypruner.strategies.measures.activations import Probe, mean_at_probes, reader_probes

_OWN_MEAN = -1
"""Stands for the mean that a norm without running statistics computes itself."""


@dataclass(frozen=True)
class Compensation:
    """The shifts that keep the mean inputs of later layers unchanged by a cut.

    Attributes:
        shifts: pairs of a bias or running mean, and the value to add to it.
        left: what cannot be compensated. These are the paths of layers that lose inputs and have
            neither a bias nor a batch norm behind them, the parameters that read channels in
            another way than a convolution or linear layer, and the operations that mix the
            channels of a group, such as a layer norm or a product of queries and keys.
    """

    shifts: tuple[tuple[Tensor, Tensor], ...]
    left: tuple[str, ...]

    @torch.no_grad()
    def apply(self) -> None:
        """Add the shifts, in place. Cut the network afterwards; the uncut one is wrong then."""
        for tensor, shift in self.shifts:
            tensor += shift.to(tensor)


def mean_compensation(
    graph: ChannelGraph,
    masks: Mapping[str, Tensor],
    context: Context,
    batches: int,
    requested_by: str,
) -> Compensation:
    """Return the compensation for the means of the channels that ``masks`` remove.

    A layer that reads a removed channel loses the mean of that channel, over samples and
    positions, times the weights that read it. This product is added to the layer's bias. If the
    layer has no bias and its output goes only to a batch norm, it is subtracted from the running
    mean of that norm.

    For channels that are constant over samples and positions, the cut is then exact, with three
    exceptions: at padded borders; behind transposed convolutions with a stride, where the mean of
    the kernel is used for each position; and at operations that mix channels, because a layer or
    group norm computes its statistics from the remaining channels.

    Args:
        graph: the channel graph of the full network.
        masks: group -> bool tensor ``(units,)``, True = keep.
        context: the source of batches and forward passes.
        batches: the largest number of batches.
        requested_by: the name of the component, for messages.

    Raises:
        ConfigError: the context has no batches or no forward passes.
        EasyPrunerError: the data set is empty, or activations are not finite numbers.
    """
    masks = {name: mask for name, mask in masks.items() if not bool(mask.all())}
    probes = [
        # One row for each channel, because a unit of several channels has a mean for each.
        replace(probe, index=probe.index[~masks[probe.group]].reshape(-1, 1))
        for probe in reader_probes(graph)
        if probe.group in masks
    ]
    losses: dict[str, Tensor] = {}
    modules: dict[str, Any] = {}
    for probe, means in mean_at_probes(
        graph, context, batches, requested_by, lambda maps: maps, probes
    ):
        modules[probe.path] = probe.module
        lost = _lost(probe, means)
        losses[probe.path] = losses[probe.path] + lost if probe.path in losses else lost
    means_behind = _running_means_behind(graph, losses)
    shifts: dict[Tensor, list[Tensor]] = {}
    groups = [graph.groups[name] for name in masks]
    mixing = dict.fromkeys(operation for group in groups for operation in group.mixed)
    left = [*_other_readers(graph, groups, modules), *mixing]
    for path, lost in losses.items():
        bias = modules[path].bias
        if bias is None and path not in means_behind:
            left.append(path)
            continue
        tensor, shift = (bias, lost) if bias is not None else (means_behind[path], -lost)
        # A norm without running statistics subtracts any constant by itself.
        if tensor is not None:
            shifts.setdefault(tensor, []).append(shift)
    joined = ((tensor, _mean_shift(tensor, each)) for tensor, each in shifts.items())
    return Compensation(tuple(joined), tuple(left))


def _mean_shift(tensor: Tensor, shifts: Sequence[Tensor]) -> Tensor:
    """Return the mean of the shifts of a bias or running mean, one of each layer that shares it.

    It is the mean over all processes as well, which use different data.
    """
    shift = torch.stack([*shifts]).mean(dim=0).to(tensor)
    average([shift])
    return shift


def _other_readers(
    graph: ChannelGraph, groups: Sequence[ChannelGroup], modules: Mapping[str, Any]
) -> list[str]:
    """Return the parameters that read removed channels, but are not those of a measured layer.

    Args:
        graph: the channel graph of the full network.
        groups: the groups that lose channels.
        modules: path -> layer whose inputs were measured.
    """
    weights = {id(module.weight) for module in modules.values()}
    return list(
        dict.fromkeys(
            member.param
            for group in groups
            for member in group.members
            if member.role == 'in'
            and id(graph.parameter(member.param)) not in weights
            and member.module.partition('.parametrizations.')[0] not in modules
        )
    )


def _lost(probe: Probe, means: Tensor) -> Tensor:
    """Return the mean that each output channel of a layer loses, ``(outputs,)``."""
    module: Any = probe.module
    groups, transposed = getattr(module, 'groups', 1), getattr(module, 'transposed', False)
    weight = module.weight.detach().cpu().double()
    kernel = weight.reshape(*weight.shape[:2], -1).sum(dim=2, keepdim=True)
    inputs = torch.zeros(kernel.shape[0] if transposed else kernel.shape[1] * groups, 1).double()
    inputs[probe.index.flatten(), 0] = means
    if transposed:
        # On average, each output position gets 1 / prod(stride) of the kernel's entries.
        outputs = functional.conv_transpose1d(inputs, kernel, groups=groups)
        return outputs.flatten() / math.prod(module.stride)
    return functional.conv1d(inputs, kernel, groups=groups).flatten()


def _running_means_behind(graph: ChannelGraph, paths: Container[str]) -> dict[str, Tensor | None]:
    """Return path of a layer -> the running mean of the batch norm that reads its output.

    The value is None for a norm without running statistics. A layer is left out if anything else
    reads its output as well, or if different calls go to different norms.

    Args:
        graph: the channel graph of the full network.
        paths: the paths of the layers.
    """
    tape = record(StandIns(graph.model), graph.example_inputs)
    names = {id(stand_in): name for name, stand_in in tape.parameters.items()}
    readers: dict[int, list[Operation | None]] = {id(t): [None] for _, t in tape.outputs}
    for operation in tape.operations:
        for tensor in operation.tensors:
            readers.setdefault(id(tensor), []).append(operation)
    found: dict[str, set[int | None]] = {}
    for operation in tape.operations:
        if operation.module in paths and operation.outputs:
            behind = readers.get(id(operation.outputs[0]), [])
            # Skip the intermediate results within a layer.
            if not all(op is not None and op.module == operation.module for op in behind):
                found.setdefault(operation.module, set()).add(_norm_mean(behind))
    return {
        path: graph.parameter(names[mean]) if mean in names else None
        for path, means in found.items()
        if len(means) == 1 and (mean := next(iter(means))) is not None
    }


def _norm_mean(behind: Sequence[Operation | None]) -> int | None:
    """Return the identity of the running mean on the tape, if a batch norm alone reads; or None."""
    if len(behind) != 1 or behind[0] is None or 'batch_norm' not in behind[0].name:
        return None
    mean = behind[0].args[3]
    return id(mean) if isinstance(mean, Tensor) else _OWN_MEAN
