"""Measures the activations of each group, where layers read or produce its channels."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from easypruner.base.modules import evaluating
from easypruner.base.randomness import fixed_seed
from easypruner.errors import EasyPrunerError
from easypruner.graph import ChannelGraph, Member
from easypruner.graph.recording.inventory import without_fast_path
from easypruner.strategies.context import Context
from easypruner.strategies.measures.units import scored_members, used_members, widen

Measure = Callable[[Tensor], Tensor]
"""A function of maps ``(samples, units, k, *positions)`` -> ``(samples, units, ...)``.

Each unit has k channels. Each channel is a map over the positions: ``(height, width)`` before a
convolution, ``(tokens,)`` before the linear layers of a transformer, none behind a pooling. The
result is averaged over all dimensions except the units.
"""


@dataclass(frozen=True, eq=False)
class Probe:
    """A layer at which the activations of a group are measured.

    Attributes:
        group: the name of the group.
        path: the path of the module.
        module: a convolution, a linear layer or a batch norm.
        index: ``(units, k)``: the channels of each unit in the measured tensor.
        output: whether the output of the module is measured, rather than its input.
    """

    group: str
    path: str
    module: nn.Module
    index: Tensor
    output: bool

    def maps(self, tensor: Tensor) -> Tensor:
        """Return the group's part of a tensor as ``(samples, units, k, *positions)``."""
        index = self.index.to(tensor.device)
        if isinstance(self.module, nn.Linear):
            rows = tensor if tensor.dim() > 1 else tensor[None]
            return rows[..., index].movedim((-2, -1), (1, 2))
        if isinstance(self.module, _ConvNd) and tensor.dim() < self.module.weight.dim():
            tensor = tensor[None]
        picked = tensor.index_select(1, index.flatten())
        return picked.reshape(tensor.shape[0], *index.shape, *tensor.shape[2:])


def reader_probes(graph: ChannelGraph) -> list[Probe]:
    """Return probes at the inputs of the convolutions and linear layers that read channels."""
    return [
        Probe(name, path, module, input_channels(graph, member, module), output=False)
        for name, members in used_members(graph).items()
        for member in members
        if member.role == 'in'
        for path, module in _owners(graph, member)
        if member.dim == _weight_dims(module)[1]
    ]


def producer_probes(graph: ChannelGraph) -> list[Probe]:
    """Return probes at the outputs of the layers that produce channels.

    These are the batch norms of a group. In a group without a batch norm, they are its
    convolutions and linear layers.
    """
    probes = []
    producers = scored_members(graph, 'producers')
    for name, group in graph.groups.items():
        norms = [m for m in group.members if m.operand == 'batch_norm.weight']
        for member in norms or producers[name]:
            for path, module in _owners(graph, member):
                if isinstance(module, _BatchNorm) or makes_output(module, member):
                    index = output_channels(graph, member, module)
                    probes.append(Probe(name, path, module, index, output=True))
    return probes


def mean_at_probes(
    graph: ChannelGraph,
    context: Context,
    batches: int,
    requested_by: str,
    measure: Measure,
    probes: Sequence[Probe],
) -> list[tuple[Probe, Tensor]]:
    """Run the network, and return the mean of a measure at each probe, ``(units,)``.

    The network runs in evaluation mode, without gradients, and stays unchanged. A layer that is
    called several times in a pass counts each time. A probe whose module is never called, because
    its weight is used elsewhere, is left out.

    Args:
        graph: the channel graph of the model.
        context: the source of batches and forward passes.
        batches: the largest number of batches.
        requested_by: the name of the component, for messages.
        measure: the function whose values are averaged.
        probes: the layers at which to measure.

    Raises:
        ConfigError: the context has no batches or no forward passes.
        EasyPrunerError: the data set is empty, or an activation is not a finite number; the
            message names the group.
    """
    means = [_Mean(probe, measure, requested_by) for probe in probes]
    forward = context.needed('forward', requested_by)
    with (
        evaluating(graph.model),
        torch.no_grad(),
        fixed_seed(context.seed),
        # The fused kernels of transformers do not call the layers inside.
        without_fast_path(),
        probing((mean.probe, mean.add) for mean in means),
    ):
        for batch in context.some_batches(batches, requested_by):
            forward(graph.model, batch)
    return [(mean.probe, mean.value) for mean in means if mean.count]


def collect(
    graph: ChannelGraph,
    context: Context,
    batches: int,
    requested_by: str,
    measure: Measure,
    probes: Sequence[Probe] | None = None,
) -> dict[str, Tensor]:
    """Return group -> ``(layers, units)``: the mean of a measure at each probe of the group.

    See :func:`mean_at_probes` for the arguments. The default probes are :func:`reader_probes`. A
    group is left out if no module of its probes is called.

    Raises:
        EasyPrunerError: no module of any probe is called.
    """
    if not graph.groups:
        return {}
    found: dict[str, list[Tensor]] = {}
    where = reader_probes(graph) if probes is None else probes
    for probe, mean in mean_at_probes(graph, context, batches, requested_by, measure, where):
        found.setdefault(probe.group, []).append(mean)
    if not found:
        raise EasyPrunerError(
            f'{requested_by} measures the channels that convolutions and linear layers read, but '
            f'this {type(graph.model).__name__} calls no such layer as a module; '
            'use a source that reads weights, such as L1Norm'
        )
    return {name: torch.stack(found[name]) for name in graph.groups if name in found}


class _Mean:
    """The running mean of a measure at one probe."""

    def __init__(self, probe: Probe, measure: Measure, requested_by: str) -> None:
        self.probe = probe
        self._measure = measure
        self._requested_by = requested_by
        self._sum = torch.zeros(probe.index.shape[0], dtype=torch.float64)
        self.count = 0

    def add(self, tensor: Tensor) -> None:
        """Add the measure of a tensor that passes the probe."""
        maps = self.probe.maps(tensor)
        if not bool(maps.isfinite().all()):
            raise EasyPrunerError(
                f'{self._requested_by} got activations of group {self.probe.group!r} that are not '
                f'finite numbers, at {self.probe.path!r}; the weights or the data are damaged'
            )
        values = widen(self._measure(maps).transpose(0, 1).flatten(1))
        # On the CPU, because some devices do not have double precision.
        self._sum += values.mean(dim=1).cpu().double() * values.shape[1]
        self.count += values.shape[1]

    @property
    def value(self) -> Tensor:
        return self._sum / self.count


@contextlib.contextmanager
def probing(watchers: Iterable[tuple[Probe, Callable[[Tensor], object]]]) -> Iterator[None]:
    """Call a function with every tensor that passes its probe, within the block.

    Args:
        watchers: pairs of a probe and the function to call.
    """
    with contextlib.ExitStack() as handles:
        for probe, watch in watchers:
            hook = _passing(probe, watch)
            handles.enter_context(probe.module.register_forward_hook(hook, with_kwargs=True))
        yield


def _passing(probe: Probe, watch: Callable[[Tensor], object]) -> Callable[..., None]:
    def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        watch(output if probe.output else args[0] if args else kwargs['input'])

    return hook


def _owners(graph: ChannelGraph, member: Member) -> Iterator[tuple[str, nn.Module]]:
    """Yield the paths and modules that hold a weight, or compute it."""
    owner, local = graph.model.get_submodule(member.module), member.param.rpartition('.')[2]
    tensor = owner._parameters.get(local)
    if tensor is None:
        yield member.module, owner
        return
    for name, module in graph.model.named_modules():
        if module._parameters.get(local) is tensor:
            yield name, module


def _weight_dims(module: nn.Module) -> tuple[int, int] | tuple[None, None]:
    """Return the dimensions of a convolution's or linear layer's weight: outputs and inputs."""
    if isinstance(module, _ConvNd) and module.transposed:
        return 1, 0
    return (0, 1) if isinstance(module, _ConvNd | nn.Linear) else (None, None)


def makes_output(module: nn.Module, member: Member) -> bool:
    """Tell whether a weight of a convolution or linear layer makes its output in this dimension."""
    return member.dim == _weight_dims(module)[0]


def input_channels(graph: ChannelGraph, member: Member, module: nn.Module) -> Tensor:
    """Return the channels of each unit in the input of a module, ``(units, k)``.

    The weight of a grouped convolution, unless transposed, has the channels of one group only.
    """
    grouped = isinstance(module, _ConvNd) and not module.transposed
    return _repeated(graph, member, module) if grouped else member.index


def output_channels(graph: ChannelGraph, member: Member, module: nn.Module) -> Tensor:
    """Return the channels of each unit in the output of a module, ``(units, k)``.

    The weight of a grouped transposed convolution has the channels of one group only.
    """
    grouped = isinstance(module, _ConvNd) and module.transposed and member.dim == 1
    return _repeated(graph, member, module) if grouped else member.index


def _repeated(graph: ChannelGraph, member: Member, module: Any) -> Tensor:
    width = graph.parameter(member.param).shape[member.dim]
    return torch.cat([member.index + width * number for number in range(module.groups)], dim=1)
