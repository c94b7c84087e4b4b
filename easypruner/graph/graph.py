"""The channel graph: what must be cut together, what a cut costs, and the cut itself."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from torch import Tensor, nn
from torch.optim import Optimizer

from easypruner.base.modules import evaluating
from easypruner.errors import CutError, MaskError, TraceError
from easypruner.graph.answers.answers import Answers
from easypruner.graph.answers.explanation import Explanation
from easypruner.graph.answers.frozen import Frozen
from easypruner.graph.answers.options import advise_on
from easypruner.graph.answers.plan import Plan, make_plan
from easypruner.graph.answers.shares import KindShare
from easypruner.graph.coupling.cost import Cost, CostModel, count_kept
from easypruner.graph.coupling.groups import ChannelGroup
from easypruner.graph.coupling.kinds import kinds_of
from easypruner.graph.coupling.layout import UnitLayout
from easypruner.graph.coupling.removal import Removal
from easypruner.graph.cutting.configs import with_configs
from easypruner.graph.cutting.handlers import LayerHandler
from easypruner.graph.cutting.optimizer_handler import OptimizerHandler
from easypruner.graph.cutting.optimizer_states import OptimizerStates
from easypruner.graph.cutting.record import ArchitectureRecord
from easypruner.graph.cutting.surgery import Kept, cut
from easypruner.graph.limits import Limits, with_families, with_grids
from easypruner.graph.masks import Masks
from easypruner.graph.pretrained.following import configs_of
from easypruner.graph.recording.composites import forget_compiled
from easypruner.graph.recording.config_numbers import attribute_of
from easypruner.graph.recording.inventory import Attributes, Inventory, find_module
from easypruner.graph.recording.outputs import CountedOutputs
from easypruner.graph.recording.tape import ExampleInputs
from easypruner.graph.recording.wrappers import (
    find_traceable,
)
from easypruner.graph.trial.path import CutToTry, TracedCall, check_path
from easypruner.graph.trial.widths import AttributeModel, RepairedNumber


class WidthGrids(Protocol):
    """Knows on which grid of widths networks are fast, such as a runtime."""

    @property
    def name(self) -> str:
        """The name, for messages."""

    @property
    def implied(self) -> bool:
        """Whether groups without a ``round_to`` of their own keep to the grids."""

    def grids(self, graph: ChannelGraph) -> Mapping[str, int]:
        """Return group -> the number of units of which it should keep a multiple."""


@dataclass(repr=False, eq=False)
class ChannelGraph:
    """What :func:`trace` finds out about a model.

    After :func:`prune` with this graph, it describes the pruned model.

    Attributes:
        model: the model that was traced.
        groups: name -> group, in the order of the forward pass.
        operands: parameter or buffer -> what it is used as, such as ``'batch_norm.weight'``. Frozen
            ones are included.
        extents: weight -> the spatial extent, or sequence, at which it makes channels.
        limits: group -> how many of its units may go, for groups that have limits. Budgets observe
            them. A share is one of the units that the group had when it was traced.
        handlers: set the modules' own numbers after a cut, in order of precedence.
        example_inputs: the inputs with which the model was traced.
        target: what knows the grids of fast widths, such as a runtime; None if nothing does.
        counted: chooses the outputs whose channels stay.
        notes: what of the options could not be done, and what the costs assume.
        pruner: what makes the cut of a plan, as :func:`prune` does.
    """

    model: nn.Module
    groups: dict[str, ChannelGroup]
    operands: dict[str, str]
    extents: dict[str, tuple[int, ...]]
    limits: dict[str, Limits]
    handlers: tuple[LayerHandler, ...]
    example_inputs: ExampleInputs
    target: WidthGrids | None
    counted: CountedOutputs
    notes: tuple[str, ...]
    _demanding: Callable[[Mapping[str, Limits]], dict[str, Limits]]
    _layout: UnitLayout
    _build_cost: Callable[[], CostModel]
    _attributes: AttributeModel
    _calls: tuple[TracedCall, ...]
    _answers: Answers
    _retrace: Callable[..., ChannelGraph]
    pruner: Callable[..., ArchitectureRecord] = field(default_factory=lambda: cut_graph)

    def __repr__(self) -> str:
        units = sum(group.size for group in self.groups.values())
        return (
            f'ChannelGraph({type(self.model).__name__}: {len(self.groups)} groups, {units} units)'
        )

    @property
    def frozen(self) -> tuple[Frozen, ...]:
        """What cannot be pruned, with the reasons."""
        return self._answers.frozen

    @property
    def shares(self) -> tuple[KindShare, ...]:
        """How much of each kind of structure can go, such as heads, and what holds the rest.

        >>> import torch
        >>> from torch import nn
        >>> from easypruner import trace
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1))
        >>> graph = trace(net, torch.zeros(1, 3, 8, 8))
        >>> [(share.kind, share.prunable, share.units) for share in graph.shares]
        [('convolution', 8, 8), ('outputs', 0, 4)]
        >>> graph.shares[1].held[0].reason
        'an output of the model (output)'
        """
        return self._answers.shares

    def explain(self, param: str, dim: int, index: int) -> Explanation:
        """Return what goes with one channel, and which operations tie it to that; or why it stays.

        Args:
            param: the dotted name of a parameter or buffer.
            dim: the dimension.
            index: the index.

        Raises:
            ConfigError: there is no such channel.

        >>> import torch
        >>> from torch import nn
        >>> from easypruner import trace
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1))
        >>> graph = trace(net, torch.zeros(1, 3, 8, 8))
        >>> print(graph.explain('0.weight', 0, 5))
        0.weight[5] is unit 5 of 8 in group '0' (convolution). These go together:
          0.weight[5]              convolution in 0
          0.bias[5]                convolution in 0
          2.weight[:, 5]  read by  convolution in 2
        """
        return self._answers.explain(param, dim, index, list(self.groups))

    def plan(self, masks: Mapping[str, Tensor]) -> Plan:
        """Return the cut that ``masks`` make, to be looked at before it is made.

        Args:
            masks: group -> bool tensor ``(units,)``, True = keep.

        Raises:
            MaskError: as for :meth:`check_cut`.

        >>> import torch
        >>> from torch import nn
        >>> from easypruner import trace
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1))
        >>> graph = trace(net, torch.zeros(1, 3, 8, 8))
        >>> plan = graph.plan({'0': torch.arange(8) > 2})
        >>> print(plan)
        Sequential: 3 of 8 units go, in 1 of 1 groups
          macs         8,928 -> 5,580 (62.5%)
          params       260 -> 164 (63.1%)
          activations  720 -> 504 (70.0%)
        layers
          0 (Conv2d): weight 8 x 3 x 3 x 3 -> 5 x 3 x 3 x 3, params 224 -> 140, MACs 7,776 -> 4,860
          2 (Conv2d): weight 4 x 8 x 1 x 1 -> 4 x 5 x 1 x 1, params 36 -> 24, MACs 1,152 -> 720
        left alone
          outputs, 4 units: an output of the model (output)
        >>> record = plan.apply()
        >>> net[0]
        Conv2d(3, 5, kernel_size=(3, 3), stride=(1, 1))
        """
        checked = self.check_cut(masks)
        layout = self._layout

        def apply(**options: Any) -> ArchitectureRecord:
            if self._layout is not layout:
                raise CutError('the network was cut after the plan was made; make the plan anew')
            return self.pruner(self.model, checked, graph=self, **options)

        return make_plan(self, checked, apply)

    def check_cut(self, masks: Mapping[str, Tensor]) -> Masks:
        """Return masks, checked as :func:`easypruner.prune` does before it changes anything.

        Args:
            masks: group -> bool tensor ``(units,)``, True = keep.

        Raises:
            MaskError: masks do not fit, remove all units of a group, or leave widths with which the
                code of the network runs other steps.
        """
        checked = masks if isinstance(masks, Masks) else Masks(masks)
        checked.check(self)
        check_path(self._calls, self.model, checked, self._cut_to_try, self.groups)
        return checked

    def on(self, model: nn.Module) -> ChannelGraph:
        """Return this graph for another instance of the same architecture, such as a copy.

        Nothing is traced again. A cut of the other model does not change this graph.

        Args:
            model: a model that has parameters of the same names and shapes.

        Raises:
            TraceError: the model has others.
        """
        model = find_traceable(model)
        tensors, own = Inventory(model).tensors, Inventory(self.model)
        cut = {member.param for group in self.groups.values() for member in group.members}
        for name, expected in own.tensors.items():
            # What an earlier forward pass left in an attribute is not a part of the architecture.
            if name in own.plain and name not in cut:
                continue
            got = tensors.get(name)
            if got is None or got.shape != expected.shape:
                raise TraceError(
                    f'the graph belongs to another architecture: {name!r} '
                    + ('does not exist' if got is None else f'has shape {tuple(got.shape)}')
                    + f' in the given model; expected shape {tuple(expected.shape)}; '
                    'trace the given model'
                )
        other = copy.copy(self)
        other.model = model
        return other

    def set_limits(self, limits: Mapping[str, Limits]) -> None:
        """Set the limits of groups, with the target's grids and what operations demand.

        Args:
            limits: group -> its limits.

        Raises:
            ConfigError: a group has ``round_to='auto'``, but there is no target.
        """
        target = self.target
        on_grids = with_grids(
            limits,
            self.groups,
            None if target is None else lambda: target.grids(self),
            implied=target is not None and target.implied,
        )
        uniform = [name for name, own in limits.items() if own.uniform]
        modules = dict(self.model.named_modules()) if uniform else {}
        self.limits = with_families(
            self._demanding(on_grids),
            kinds_of(uniform, self.groups, modules),
            {name: group.size for name, group in self.groups.items()},
        )

    def parameter(self, name: str) -> Tensor:
        """Return the parameter or buffer with a dotted name."""
        path, _, local = name.rpartition('.')
        module = find_module(self.model, path)
        tensor: Tensor | None = module._parameters.get(local)
        if tensor is None:
            tensor = module._buffers.get(local)
        if (
            tensor is None
        ):  # a weight that is computed; spectral norm changes its vectors then while it trains
            with evaluating(module):
                tensor = getattr(module, local)
        assert isinstance(tensor, Tensor)
        return tensor

    def cost(self, masks: Mapping[str, Tensor] | None = None) -> Cost:
        """Return the exact cost of the model under ``masks``, without a cut.

        Args:
            masks: group -> bool tensor ``(units,)``, True = keep. Groups without a mask stay whole.

        Raises:
            MaskError: a mask has another shape than its group, or there is no such group.
        """
        return self._cost(self._kept_units(masks))

    def layer_costs(self, masks: Mapping[str, Tensor] | None = None) -> dict[str, Cost]:
        """Return path of a module -> its part of :meth:`cost`. The parts sum to the cost exactly.

        The part of a module is that of its own parameters, and of the operations of its forward
        outside of other modules. A tied parameter counts for the first module that has it. Modules
        without a cost are left out. The path '' is the model itself.

        Args:
            masks: as for :meth:`cost`.
        """
        return self._cost.by_layer(self._kept_units(masks))

    def group_costs(self, masks: Mapping[str, Tensor] | None = None) -> dict[str, Cost]:
        """Return group -> the cost that goes if the group loses all units that ``masks`` keep.

        The weights between two groups go with either of them. So these costs do not sum to the
        cost of the model.

        Args:
            masks: as for :meth:`cost`.
        """
        costs = self._cost.by_group(self._kept_units(masks))
        return dict(zip(self.groups, costs, strict=True))

    @cached_property
    def _cost(self) -> CostModel:
        return self._build_cost()

    def attributes(self, masks: Mapping[str, Tensor]) -> Attributes:
        """Return (path of a module, attribute) -> the integer to which a cut must set it."""
        return self._attributes(self._kept_units(masks))

    def repairs(self, masks: Mapping[str, Tensor]) -> tuple[RepairedNumber, ...]:
        """Return the numbers in the model's code that a cut changes, each with its values.

        These are the attributes that are set because the forward pass reads them where it would
        fail. Attributes that handlers set, such as ``out_channels`` of a convolution, are not
        among them.

        Args:
            masks: as for :meth:`cost`.
        """
        found = (
            RepairedNumber(path, name, attribute_of(self.model.get_submodule(path), name), value)
            for (path, name), value in self.attributes(masks).items()
        )
        return tuple(repair for repair in found if repair.before != repair.after)

    def _kept_units(self, masks: Mapping[str, Tensor] | None) -> list[int]:
        masks = masks or {}
        if not masks.keys() <= self.groups.keys():
            Masks(masks).check(self)  # raises, and names the group
        try:
            return count_kept(masks, self.groups)
        except MaskError as error:
            raise MaskError(f'{error}{self.advise_on(masks)}') from error

    def advise_on(self, masks: Mapping[str, Tensor]) -> str:
        """Return what to do about masks that do not fit: text to append to a message, or none.

        They may be those of the network before a cut, or of a trace with other options. So the
        network is traced with each of these.
        """
        return advise_on(masks, list(self.groups), self._answers, self._group_sizes)

    def _group_sizes(self, options: Mapping[str, str]) -> dict[str, int]:
        """Return group -> the number of its units in a trace with other options."""
        return {name: group.size for name, group in self._retrace(**options).groups.items()}

    def keep(self, masks: Mapping[str, Tensor]) -> dict[tuple[str, int], Tensor]:
        """Return the masks of parameters and buffers.

        Args:
            masks: group -> bool tensor, True = keep.

        Returns:
            (parameter or buffer, dimension) -> bool tensor of that dimension's size, True = keep,
            for each dimension that loses indices.
        """
        return self._removal(masks).masks()

    def _removal(self, masks: Mapping[str, Tensor]) -> Removal:
        """Return what goes with the units that masks do not keep."""
        groups = self.groups.items()
        kept = self._layout.mark_kept({g.number: masks[n] for n, g in groups if n in masks})
        return Removal(self._layout, kept)

    def _cut_to_try(self, masks: Mapping[str, Tensor]) -> CutToTry:
        """Return what a forward pass shows of a cut."""
        removal = self._removal(masks)
        return CutToTry(removal.indices(), self._attributes(removal.counts()), self.handlers)

    def _shrink(self, removal: Removal) -> None:
        """Update the graph after a cut."""
        # A share refers to the units before the cut, so it becomes a number of units.
        self.limits = {n: own.in_units(self.groups[n].size) for n, own in self.limits.items()}
        layout = removal.after()
        self._answers = self._answers.after(removal.kept)
        sizes = np.diff(layout.first_unit).tolist()
        self._layout = layout
        self.groups = {
            name: ChannelGroup(name, size, group.number, layout, group.mixed)
            for (name, group), size in zip(self.groups.items(), sizes, strict=True)
        }


def cut_graph(
    model: nn.Module,
    masks: Mapping[str, Tensor],
    *,
    graph: ChannelGraph,
    optimizer: Optimizer | Sequence[Optimizer] = (),
    copies: nn.Module | Sequence[nn.Module] = (),
    optimizer_handlers: Sequence[OptimizerHandler] = (),
    inventory: Inventory | None = None,
    is_copy: bool = False,
) -> ArchitectureRecord:
    """Remove the units that masks do not keep, in place; arguments and errors are those of prune().

    Args:
        model: the network that the graph describes.
        masks: group -> bool tensor ``(units,)``, True = keep.
        graph: the graph; it describes the pruned network afterwards.
        optimizer: one or several optimizers, whose states are cut as well.
        copies: networks from which the same indices are cut.
        optimizer_handlers: handlers of optimizers, before those of plugins.
        inventory: the inventory of the network, if the caller has it.
        is_copy: whether no compiled function can call the network.
    """
    if graph.model is not model:
        # The graph would describe a cut that its own model has not undergone.
        raise CutError(
            f'the graph belongs to another instance than the {type(model).__name__} that is to be '
            'cut; give graph=graph.on(model), or cut the model that was traced'
        )
    removal = graph._removal(graph.check_cut(masks))
    kept: Kept = removal.indices()
    attributes = graph._attributes(removal.counts())
    inventory = inventory or Inventory(model)
    units = removal.units_of({name: group.number for name, group in graph.groups.items()})
    record_of_cut = ArchitectureRecord.of(inventory, kept, units, attributes)
    optimizers = list(optimizer) if isinstance(optimizer, Iterable) else [optimizer]
    states = OptimizerStates(optimizers, optimizer_handlers)
    copies = [copies] if isinstance(copies, nn.Module) else list(copies)
    configs = {key: own for each in (model, *copies) for key, own in configs_of(each).items()}
    cut(inventory, kept, graph.handlers, attributes, states, copies)
    graph._shrink(removal)
    if not is_copy:
        forget_compiled()
    return with_configs(record_of_cut, inventory, copies, configs, graph.example_inputs)
