"""The channel graph: which parameters are cut together, what a cut costs, and the cut itself."""

from __future__ import annotations

import contextlib
import copy
import gc
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from easypruner.base.nested import map_tensors
from easypruner.errors import CutError, MaskError, TraceError
from easypruner.graph.coupling.choice import Attention, Ignored, PruningChoice
from easypruner.graph.coupling.cost import Cost, CostModel, build_cost_model, kept_units
from easypruner.graph.coupling.groups import ChannelGroup, Frozen, find_frozen, make_groups
from easypruner.graph.coupling.layout import Members, UnitLayout
from easypruner.graph.coupling.propagate import propagate
from easypruner.graph.coupling.tensor_map import TensorMap
from easypruner.graph.cutting.handlers import with_torch_layers
from easypruner.graph.cutting.layer_handler import LayerHandler
from easypruner.graph.cutting.record import ArchitectureRecord
from easypruner.graph.cutting.surgery import Kept, cut
from easypruner.graph.limits import Limits
from easypruner.graph.masks import Masks
from easypruner.graph.recording.attributes import Attributes
from easypruner.graph.recording.inventory import Inventory
from easypruner.graph.recording.stand_ins import Rehearsal
from easypruner.graph.recording.tape import ExampleInputs, Tape, record
from easypruner.graph.recording.wrappers import check_parts, cuttable, traceable
from easypruner.graph.trial.repair import AttributeModel
from easypruner.graph.trial.resolve import settle
from easypruner.graph.trial.trial import Trial


class ChannelGraph:
    """What :func:`trace` finds out about a model.

    After :func:`prune` with this graph, it describes the pruned model.

    Attributes:
        model: the model that was traced.
        groups: name -> group, in the order in which the forward pass meets them.
        operands: parameter or buffer -> what it is used as, e.g. ``'batch_norm.weight'``; frozen
            ones too.
        extents: weight -> the spatial extent, or sequence, at which it makes channels.
        limits: group -> how much of it may go, where that was said. Budgets keep to it. A share is
            of the units that the group had when it was traced.
        example_inputs: that the model was traced on.
    """

    def __init__(
        self,
        model: nn.Module,
        groups: Mapping[str, ChannelGroup],
        layout: UnitLayout,
        operands: Mapping[str, str],
        extents: Mapping[str, tuple[int, ...]],
        limits: Mapping[str, Limits],
        cost: Callable[[], CostModel],
        attributes: AttributeModel,
        explain: Callable[[], tuple[Frozen, ...]],
        handlers: Sequence[LayerHandler],
        example_inputs: ExampleInputs,
    ) -> None:
        self.model = model
        self.example_inputs = example_inputs
        self.groups = dict(groups)
        self._layout = layout
        self.operands = dict(operands)
        self.extents = dict(extents)
        self.limits = dict(limits)
        self.handlers = tuple(handlers)
        self._build_cost = cost
        self._attributes = attributes
        self._explain = explain

    def __repr__(self) -> str:
        units = sum(group.size for group in self.groups.values())
        return (
            f'ChannelGraph({type(self.model).__name__}: {len(self.groups)} groups, {units} units)'
        )

    @cached_property
    def frozen(self) -> tuple[Frozen, ...]:
        """What cannot be pruned: parameter, dimension, number of channels and the reason."""
        return self._explain()

    def on(self, model: nn.Module) -> ChannelGraph:
        """Return this graph for another instance of the same architecture, such as a copy.

        Nothing is traced again. To cut that model leaves this graph as it is.

        Args:
            model: has parameters of the same names and shapes.

        Raises:
            TraceError: it has not.
        """
        model = traceable(model)
        tensors = Inventory(model).tensors
        for name, expected in Inventory(self.model).tensors.items():
            met = tensors.get(name)
            if met is None or met.shape != expected.shape:
                raise TraceError(
                    f'this graph is of another architecture: {name!r} is '
                    f'{tuple(expected.shape)} in its model, and in the given one '
                    + ('not there' if met is None else f'{tuple(met.shape)}')
                )
        other = copy.copy(self)
        other.model = model
        return other

    def parameter(self, name: str) -> Tensor:
        """Return a parameter or buffer of the model by its dotted name."""
        path, _, local = name.rpartition('.')
        tensor = getattr(self.model.get_submodule(path), local)
        assert isinstance(tensor, Tensor)
        return tensor

    def cost(self, masks: Mapping[str, Tensor] | None = None) -> Cost:
        """Return what the model costs under ``masks``; exact, nothing is rebuilt.

        Args:
            masks: group -> bool tensor ``(units,)``, True = keep. Groups that are not named stay
                whole.

        Raises:
            MaskError: a mask of no group of this graph, or not of its group's shape.
        """
        return self._cost(self._kept_units(masks))

    def layer_costs(self, masks: Mapping[str, Tensor] | None = None) -> dict[str, Cost]:
        """Return module path -> its part of :meth:`cost`; they sum to it exactly.

        A module has the parameters it owns and what is computed in its own forward, outside of
        other modules'. Tied parameters count where they are met first. Modules without a cost
        are left out; '' is the model itself.

        Args:
            masks: as for :meth:`cost`.
        """
        return self._cost.by_layer(self._kept_units(masks))

    def group_costs(self, masks: Mapping[str, Tensor] | None = None) -> dict[str, Cost]:
        """Return group -> what goes if it loses all its units: the cost with it, less without.

        The weights between two groups go with either, so these costs do not sum to the whole.

        Args:
            masks: as for :meth:`cost`; what goes is then less than of the whole model.
        """
        costs = self._cost.by_group(self._kept_units(masks))
        return dict(zip(self.groups, costs, strict=True))

    @cached_property
    def _cost(self) -> CostModel:
        return self._build_cost()

    def attributes(self, masks: Mapping[str, Tensor]) -> Attributes:
        """Return the integers of modules that must be set after a cut: (path, name) -> value."""
        return self._attributes(self._kept_units(masks))

    def _kept_units(self, masks: Mapping[str, Tensor] | None) -> list[int]:
        masks = masks or {}
        if unknown := masks.keys() - self.groups.keys():
            Masks(masks).check(self)
            raise MaskError(f'unknown groups: {sorted(unknown)}')
        return kept_units(masks, self.groups)

    def keep(self, masks: Mapping[str, Tensor]) -> dict[tuple[str, int], Tensor]:
        """Spread masks over parameters.

        Args:
            masks: group -> bool tensor, True = keep.

        Returns:
            (parameter or buffer, dim) -> bool tensor of that dimension's size, True = keep, for
            each dimension that loses something.
        """
        return self._layout.spread(self._layout.mark_kept(self._numbered(masks)))

    def _numbered(self, masks: Mapping[str, Tensor]) -> dict[int, Tensor]:
        return {n: masks[name] for n, name in enumerate(self.groups) if name in masks}

    def _shrink(self, masks: Mapping[str, Tensor]) -> None:
        """Describe the model after a cut."""
        # A share of the units is one of those that there were.
        self.limits = {n: own.in_units(self.groups[n].size) for n, own in self.limits.items()}
        layout = self._layout.after(self._layout.mark_kept(self._numbered(masks)))
        sizes = np.diff(layout.first_unit).tolist()
        self._layout = layout
        self.groups = {
            name: replace(group, size=size, members=Members(layout, number))
            for number, ((name, group), size) in enumerate(
                zip(self.groups.items(), sizes, strict=True)
            )
        }


@contextlib.contextmanager
def _without_collection() -> Iterator[None]:
    """Pause the garbage collector: what a trace allocates lives to its end, and is much."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


# In inference mode composite operations would come whole, where the rules know their parts.
@torch.inference_mode(False)
@_without_collection()
def trace(
    model: nn.Module,
    example_inputs: ExampleInputs,
    handlers: Sequence[LayerHandler] = (),
    *,
    ignore: Ignored | Iterable[Ignored] = (),
    limits: Limits | Mapping[str, Any] | None = None,
    attention: Attention = 'width',
) -> ChannelGraph:
    """Find out which channels of ``model`` can be removed, and with which others.

    The model's own forward runs once on the meta device: no weight is copied, nothing computed,
    and the model is left as it was.

    Args:
        model: any network whose forward runs on ``example_inputs``. Of one that is wrapped in
            DistributedDataParallel, DataParallel or ``torch.compile`` the graph is that of the
            network inside, with its names.
        example_inputs: a tensor, a tuple of positional arguments, or a dict of keyword arguments.
            MACs are those of this input, the whole batch.
        handlers: keep the modules' own numbers true after a cut, in order of precedence. Behind
            them come those for torch's own layers; ``easypruner.trace`` has those of plugins
            between.
        ignore: modules whose channels stay: paths (with all inside), globs, names of classes, or
            classes. They may still come to read fewer channels.
        limits: how much of each group may go: :class:`easypruner.Limits` or a dict of its
            attributes for all, or a dict with such for paths, globs or names of groups, of which
            the first that fits counts. Budgets keep to them.
        attention: ``'width'`` removes width of every head of an attention, ``'heads'`` whole
            heads.

    Raises:
        ConfigError: ``ignore``, ``limits`` or ``attention`` that is not understood or fits nothing.
        TraceError: the forward pass fails, or is not Python's (TorchScript); or parameters are
            sharded over processes.

    >>> from torch import nn
    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1))
    >>> graph = trace(net, torch.zeros(1, 3, 8, 8))
    >>> graph
    ChannelGraph(Sequential: 1 groups, 8 units)
    >>> [(m.param, m.dim, m.role) for m in graph.groups['0'].members]
    [('0.weight', 0, 'out'), ('0.bias', 0, 'out'), ('2.weight', 1, 'in')]
    >>> graph.cost().macs  # 36 positions x 8 x 3 x 9, and 36 x 4 x 8
    8928
    """
    choice = PruningChoice.of(ignore, limits, attention)
    model = traceable(model)
    handlers = with_torch_layers(handlers)
    rehearsal = Rehearsal(model)
    check_parts(rehearsal)
    parameters = {n: t for n, t in rehearsal.tensors.items() if isinstance(t, nn.Parameter)}
    tapes = _tapes(rehearsal, example_inputs, parameters)
    propagation = propagate(rehearsal, tapes, choice)
    coupling = propagation.coupling
    settled = settle(Trial(rehearsal, tapes[0], propagation, handlers))
    parts = settled.parts
    groups, layout = make_groups(coupling, propagation.owned, parts, tapes[0].parameters)
    return ChannelGraph(
        model=model,
        groups=groups,
        layout=layout,
        operands=coupling.tally.operands,
        extents=coupling.tally.extents,
        limits=choice.limits_of(groups),
        cost=lambda: build_cost_model(coupling, parts, parameters),
        attributes=AttributeModel.build(settled.repairs, parts),
        explain=lambda: find_frozen(coupling, parts, parameters),
        handlers=handlers,
        example_inputs=example_inputs,
    )


def _tapes(
    rehearsal: Rehearsal, example_inputs: ExampleInputs, parameters: Iterable[str]
) -> list[Tape]:
    """Record the evaluation pass and, if it leaves parameters out, the training pass as well.

    Auxiliary heads run in training only, and read channels that the main path makes.
    """
    evaluation = record(rehearsal, example_inputs)
    if not _unread(evaluation, parameters):
        return [evaluation]
    # A batch norm in training needs more than one value per channel, even behind a global pool.
    twice = map_tensors(example_inputs, lambda t: torch.cat([t, t]) if t.dim() else t)
    try:
        return [evaluation, record(rehearsal, twice, training=True, world=evaluation.world)]
    except TraceError:
        return [evaluation]


def _unread(tape: Tape, parameters: Iterable[str]) -> bool:
    """Tell whether some parameter is read by no operation of the tape."""
    read = TensorMap((t, True) for operation in tape.operations for t in operation.tensors)
    return any(tape.parameters[name] not in read for name in parameters)


def prune(
    model: nn.Module,
    masks: Mapping[str, Tensor],
    *,
    graph: ChannelGraph | None = None,
    example_inputs: ExampleInputs | None = None,
    optimizer: Optimizer | Sequence[Optimizer] = (),
    copies: nn.Module | Sequence[nn.Module] = (),
    handlers: Sequence[LayerHandler] = (),
) -> ArchitectureRecord:
    """Remove what ``masks`` do not keep, in place.

    Parameters stay the same objects, with their gradients cut, so optimizers, hooks and ties hold.
    On any failure the model, the optimizers and the copies are left as they were. The graph is
    updated: it describes the pruned model afterwards.

    Args:
        model: the network; inside DataParallel or ``torch.compile`` the network in it is cut.
        masks: group -> bool tensor ``(units,)``, True = keep.
        graph: of this model, for another instance see :meth:`ChannelGraph.on`; without it the model
            is traced on ``example_inputs``.
        example_inputs: as for :func:`trace`; only needed without ``graph``.
        optimizer: one or several whose states (momentum, moments) are cut along.
        copies: networks of the same class and shapes that are cut along by the same indices, each
            its own weights: a teacher, or an average of the weights such as
            ``torch.optim.swa_utils.AveragedModel`` or MMEngine's ``ExponentialMovingAverage``.
        handlers: as for :func:`trace`; only used without ``graph``.

    Returns:
        The record from which :func:`load_pruned` rebuilds the architecture.

    Raises:
        MaskError: masks that do not fit, or that leave nothing of a group.
        CutError: the graph is of another instance, a copy is another network, an optimizer's state
            cannot be cut, or the model is wrapped in DistributedDataParallel, which has to be
            built anew after a cut.
        TraceError: the model is no network, or as for :func:`trace`.
    """
    model = cuttable(model)
    if graph is None:
        if example_inputs is None:
            raise TypeError('prune() needs graph= (from easypruner.trace) or example_inputs=')
        graph = trace(model, example_inputs, handlers)
    if graph.model is not model:
        # It would come to describe a cut that its own model has not undergone.
        raise CutError(
            f'the graph is of another instance than the {type(model).__name__} that is to be cut; '
            'give graph=graph.on(model), or cut the model that was traced'
        )
    checked = masks if isinstance(masks, Masks) else Masks(masks)
    checked.check(graph)
    keep = graph.keep(checked)
    index = TensorMap((mask, mask.nonzero().flatten()) for mask in keep.values())
    kept: Kept = {dimension: index[mask] for dimension, mask in keep.items()}
    attributes = graph.attributes(checked)
    inventory = Inventory(model)
    record_of_cut = ArchitectureRecord.of(inventory, kept, checked, attributes)
    optimizers = [optimizer] if isinstance(optimizer, Optimizer) else list(optimizer)
    copies = [copies] if isinstance(copies, nn.Module) else list(copies)
    cut(inventory, kept, graph.handlers, attributes, optimizers, copies)
    graph._shrink(checked)
    return record_of_cut
