"""Compensation: what removed channels hold on average goes to the biases behind their readers."""

from __future__ import annotations

import math
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from easypruner.graph import ChannelGraph
from easypruner.graph.recording.stand_ins import Rehearsal
from easypruner.graph.recording.tape import Operation, record
from easypruner.strategies.context import Context
from easypruner.strategies.measures.activations import Probe, probe_each, reader_probes

_OWN_MEAN = -1


@dataclass(frozen=True)
class Compensation:
    """What is to be added so that a cut does not shift what later layers get.

    Attributes:
        shifts: (bias or running mean, what is added to it).
        left: paths of layers that lose something and have neither, parameters that read channels
            in another way than a convolution or linear layer, and operations that mix the channels
            of a group, such as a layer norm or a product of queries and keys: what comes out of
            them shifts.
    """

    shifts: tuple[tuple[Tensor, Tensor], ...]
    left: tuple[str, ...]

    @torch.no_grad()
    def apply(self) -> None:
        """Add the shifts, in place. To be followed by the cut: before it, they count twice."""
        for tensor, shift in self.shifts:
            tensor += shift.to(tensor)


def mean_compensation(
    graph: ChannelGraph,
    masks: Mapping[str, Tensor],
    context: Context,
    batches: int,
    requested_by: str,
) -> Compensation:
    """Return what makes up for the means of the channels that ``masks`` remove.

    A layer that reads a removed channel loses its mean, over samples and positions, times the
    weights that read it. That is added to the layer's bias; where it has none and what it returns
    goes to a batch norm alone, it is taken off that norm's running mean. For channels that hold
    the same everywhere the cut is exact then, but at borders that are padded, behind transposed
    convolutions with a stride, where the kernel's mean over positions stands for each, and where
    operations mix channels: the statistics of a layer or group norm are those of what is left.

    Args:
        graph: of the full network.
        masks: group -> bool tensor ``(units,)``, True = keep.
        context: gives batches and forward passes.
        batches: how many, at the most.
        requested_by: the name of the component, for messages.

    Raises:
        ConfigError: the context has no batches or no forward passes.
        EasyPrunerError: the data set is empty, or activations are not finite numbers.
    """
    probes = [
        # One row for each channel: units of several have a mean for each.
        replace(probe, index=probe.index[~masks[probe.group]].reshape(-1, 1))
        for probe in reader_probes(graph)
        if probe.group in masks and not bool(masks[probe.group].all())
    ]
    losses: dict[str, Tensor] = {}
    modules: dict[str, Any] = {}
    for probe, means in probe_each(
        graph, context, batches, requested_by, lambda maps: maps, probes
    ):
        modules[probe.path] = probe.module
        lost = _lost(probe, means)
        losses[probe.path] = losses[probe.path] + lost if probe.path in losses else lost
    means_behind = _running_means_behind(graph, losses)
    shifts: dict[int, _Shift] = {}
    left = [*_unseen(graph, masks, modules), *_mixing(graph, masks)]
    for path, lost in losses.items():
        bias = modules[path].bias
        if bias is None and path not in means_behind:
            left.append(path)
            continue
        tensor, shift = (bias, lost) if bias is not None else (means_behind[path], -lost)
        # Without running statistics a norm takes off any constant by itself.
        if tensor is not None:
            shifts.setdefault(id(tensor), _Shift(tensor, [])).each.append(shift)
    return Compensation(tuple((s.tensor, s.mean()) for s in shifts.values()), tuple(left))


@dataclass(frozen=True)
class _Shift:
    """What the layers that share a bias, or a norm, would each have added to it."""

    tensor: Tensor
    each: list[Tensor]

    def mean(self) -> Tensor:
        """Return the mean over the layers, and over all processes, which have met other data."""
        shift = torch.stack(self.each).mean(dim=0)
        if dist.is_initialized():
            shift = shift.to(self.tensor)
            dist.all_reduce(shift)
            shift /= dist.get_world_size()
        return shift


def _unseen(
    graph: ChannelGraph, masks: Mapping[str, Tensor], modules: Mapping[str, Any]
) -> list[str]:
    """Return what reads removed channels and is no convolution or linear layer that was called.

    Args:
        graph: of the full network.
        masks: True = keep.
        modules: path -> layer that was seen.
    """
    weights = {id(module.weight) for module in modules.values()}
    return list(
        dict.fromkeys(
            member.param
            for name, mask in masks.items()
            if not bool(mask.all())
            for member in graph.groups[name].members
            if member.role == 'in'
            and id(graph.parameter(member.param)) not in weights
            and member.module.partition('.parametrizations.')[0] not in modules
        )
    )


def _mixing(graph: ChannelGraph, masks: Mapping[str, Tensor]) -> list[str]:
    """Return the operations that mix removed channels with others, and where they are."""
    lost = [graph.groups[name] for name, mask in masks.items() if not bool(mask.all())]
    return list(dict.fromkeys(note for group in lost for note in group.mixed))


def _lost(probe: Probe, means: Tensor) -> Tensor:
    """Return what each output channel of a layer loses, ``(outputs,)``."""
    module: Any = probe.module
    weight = module.weight.detach().cpu().double()
    given = torch.zeros(_inputs(module), dtype=torch.float64)
    given[probe.index.flatten()] = means
    if isinstance(module, nn.Linear):
        return weight @ given
    kernel = weight.flatten(2).sum(dim=2)
    rows = given.view(module.groups, -1)
    if module.transposed:
        # Each position of the output gets one in prod(stride) of the kernel's entries.
        kernel = kernel.view(module.groups, rows.shape[1], -1) / math.prod(module.stride)
        return torch.einsum('gio,gi->go', kernel, rows).flatten()
    kernel = kernel.view(module.groups, -1, rows.shape[1])
    return torch.einsum('goi,gi->go', kernel, rows).flatten()


def _inputs(module: Any) -> int:
    if not isinstance(module, _ConvNd):
        return int(module.weight.shape[1])
    weight = module.weight
    return int(weight.shape[0] if module.transposed else weight.shape[1] * module.groups)


def _running_means_behind(graph: ChannelGraph, paths: Container[str]) -> dict[str, Tensor | None]:
    """Return path of a layer -> the running mean of the batch norm that its output goes to.

    None stands for a norm that takes the mean of what it is given. Layers whose output goes
    elsewhere as well, or not to one and the same norm in every call, are left out.

    Args:
        graph: of the full network.
        paths: of the layers.
    """
    tape = record(Rehearsal(graph.model), graph.example_inputs)
    names = {id(stand_in): name for name, stand_in in tape.parameters.items()}
    readers: dict[int, list[Operation | None]] = {id(t): [None] for _, t in tape.outputs}
    for operation in tape.operations:
        for tensor in operation.tensors:
            readers.setdefault(id(tensor), []).append(operation)
    found: dict[str, set[int | None]] = {}
    for operation in tape.operations:
        if operation.module in paths and operation.outputs:
            behind = readers.get(id(operation.outputs[0]), [])
            # What a layer computes on its way to its output stays within it.
            if not all(op is not None and op.module == operation.module for op in behind):
                found.setdefault(operation.module, set()).add(_norm_mean(behind))
    return {
        path: graph.parameter(names[mean]) if mean in names else None
        for path, means in found.items()
        if len(means) == 1 and (mean := next(iter(means))) is not None
    }


def _norm_mean(behind: Sequence[Operation | None]) -> int | None:
    """Return the identity of a norm's running mean on the tape; None if there is no such norm."""
    if len(behind) != 1 or behind[0] is None or 'batch_norm' not in behind[0].name:
        return None
    mean = behind[0].args[3]
    return id(mean) if isinstance(mean, Tensor) else _OWN_MEAN
