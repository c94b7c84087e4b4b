"""Surgery: cut parameters, buffers, gradients and optimizer states, all of them or none."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from easypruner.errors import CutError
from easypruner.graph.cutting.handlers import LayerHandler, resize_layers
from easypruner.graph.cutting.optimizer_handler import like_layout
from easypruner.graph.cutting.optimizer_states import OptimizerStates, StateChange
from easypruner.graph.recording.inventory import Attributes, Inventory, set_attributes
from easypruner.graph.recording.parametrized import refresh, weight_norms
from easypruner.graph.recording.snapshot import Snapshot
from easypruner.graph.recording.wrappers import find_copy

Kept = Mapping[tuple[str, int], Tensor]
"""(parameter or buffer, dimension) -> the indices that stay, int64, ascending."""

_OWN = ('_parameters', '_buffers', '_modules')


@torch.inference_mode(False)
@torch.no_grad()
def cut(
    inventory: Inventory,
    kept: Kept,
    handlers: Sequence[LayerHandler],
    attributes: Attributes,
    states: OptimizerStates | None = None,
    copies: Sequence[nn.Module] = (),
) -> None:
    """Cut a model in place to the kept indices. If anything fails, everything is left as it was.

    Parameters stay the same objects, so ties, hooks and the groups of optimizers remain valid.
    Gradients and optimizer states are cut with their parameters. A weight under weight norm keeps
    its values: its lengths become those of the shorter directions.

    Args:
        inventory: the inventory of the network.
        kept: the indices that stay. Dimensions that are not named stay whole. Tied tensors have
            their first name.
        handlers: set the modules' own numbers, in order of precedence.
        attributes: the attributes of modules to set.
        states: the states of optimizers, which are cut as well.
        copies: networks of the same class and shapes, or averages of one, to be cut alike.

    Raises:
        CutError: a copy is another network, or the state of an optimizer cannot be cut.
    """
    states = states or OptimizerStates()
    networks = [inventory, *(_find_alike(other, inventory) for other in copies)]
    swaps: dict[int, _Swap] = {}
    for network in networks:
        for swap in _plan_swaps(network, kept, states):
            swaps.setdefault(id(swap.tensor), swap)
    modules = [module for network in networks for module in network.modules.values()]
    with contextlib.ExitStack() as undo:
        undo.callback(Snapshot([*modules, *copies]).restore)
        for network in {id(n.model): n for n in networks}.values():
            _resize(network, swaps, handlers, attributes)
        begun: list[_Swap] = []
        undo.callback(_undo, begun)
        for swap in swaps.values():
            begun.append(swap)
            swap.perform()
        for other in copies:
            _repoint(other, list(swaps.values()))
        refresh(modules)
        for module in modules:
            # Fast kernels need the weights of a recurrent layer in one piece of memory.
            if isinstance(module, nn.RNNBase):
                module.flatten_parameters()
        # Nothing has failed, so nothing is undone.
        undo.pop_all()


def _undo(swaps: Sequence[_Swap]) -> None:
    for swap in reversed(swaps):
        swap.undo()


def _find_alike(other: nn.Module, original: Inventory) -> Inventory:
    """Return the network of the class and shapes of the original inside a copy."""
    network = Inventory(find_copy(other, original.model))
    shapes, expected = (
        {name: tuple(tensor.shape) for name, tensor in n.tensors.items()}
        for n in (network, original)
    )
    for name in {**expected, **shapes}:
        if shapes.get(name) != expected.get(name):
            raise CutError(
                f'a copy to be cut along has {name!r} of shape {shapes.get(name)}; '
                f'expected {expected.get(name)}, as the model has it'
            )
    return network


def _resize(
    network: Inventory,
    swaps: Mapping[int, _Swap],
    handlers: Sequence[LayerHandler],
    attributes: Attributes,
) -> None:
    """Set the numbers of a network's modules for the new shapes of its tensors."""
    shapes = {
        name: swaps[id(tensor)].data.shape
        for name, tensor in network.tensors.items()
        if id(tensor) in swaps
    }
    set_attributes(network.modules, attributes)
    resize_layers(network.modules, network.by_layer(shapes), handlers)


Cuts = Sequence[tuple[int, Tensor]]
"""(dimension, indices that stay) for each dimension of a tensor that loses indices."""


def _select(value: Tensor, cuts: Cuts, sizes: torch.Size) -> Tensor:
    """Return a tensor cut along those dimensions in which it has the given sizes."""
    result = value
    for dim, index in cuts:
        if value.shape[dim] == sizes[dim]:
            result = result.index_select(dim, index if value.is_cpu else index.to(value.device))
    return result if value.dim() < 4 else like_layout(result, value)


@dataclass(frozen=True)
class _Swap:
    """The new content of one tensor, computed before anything is changed.

    Attributes:
        tensor: the parameter or buffer.
        data: its new content.
        grad: its new gradient.
        states: the changes of optimizer states.
        before: the old content and gradient.
    """

    tensor: Tensor
    data: Tensor
    grad: Tensor | None
    states: tuple[StateChange, ...]
    before: tuple[Tensor, Tensor | None] = field(repr=False)

    @classmethod
    def plan(cls, name: str, tensor: Tensor, cuts: Cuts, states: OptimizerStates) -> _Swap:
        content = tensor.detach()
        if tensor.is_inference():  # its content must be made in inference mode as well
            with torch.inference_mode():
                data = _select(content, cuts, tensor.shape)
        else:
            data = _select(content, cuts, tensor.shape)
        return cls(
            tensor=tensor,
            data=data,
            grad=None if tensor.grad is None else _select(tensor.grad, cuts, tensor.shape),
            states=tuple(states.plan(name, tensor, dict(cuts))) if states else (),
            before=(content, tensor.grad),
        )

    def perform(self) -> None:
        self._set(self.data, self.grad)
        for change in self.states:
            change.state.update(change.new)

    def undo(self) -> None:
        self._set(*self.before)
        for change in self.states:
            change.state.update(change.old)

    def _set(self, data: Tensor, grad: Tensor | None) -> None:
        self.tensor.grad = None
        if self.tensor.requires_grad and not self.tensor.is_inference():
            # As long as an old autograd graph is alive (a variable may hold a loss), so is the node
            # that accumulates this gradient, and it expects the old shape. A change of the dtype
            # makes autograd forget the node.
            other = torch.float32 if data.dtype == torch.float16 else torch.float16
            self.tensor.data = torch.empty(0, dtype=other, device=data.device)
        self.tensor.data = data
        self.tensor.grad = grad


def _plan_swaps(network: Inventory, kept: Kept, states: OptimizerStates) -> Iterator[_Swap]:
    tensors = network.tensors
    cuts: dict[str, list[tuple[int, Tensor]]] = {}
    for (name, dim), index in kept.items():
        cuts.setdefault(name, []).append((dim, index))
    swaps = {name: _Swap.plan(name, tensors[name], parts, states) for name, parts in cuts.items()}
    for normed in weight_norms(network.modules):
        if all(dim == normed.dim for dim, _ in cuts.get(normed.direction, ())):
            continue
        length, direction = tensors[normed.length], tensors[normed.direction]
        swap = swaps.get(normed.length) or _Swap.plan(normed.length, length, (), states)
        ratio = normed.ratio(length.detach(), direction.detach())
        ratio = _select(ratio, cuts.get(normed.length, ()), length.shape)
        data = normed.rescaled(ratio, swaps[normed.direction].data).to(length.dtype)
        swaps[normed.length] = replace(swap, data=data)
    yield from swaps.values()


def _repoint(average: nn.Module, swaps: Sequence[_Swap]) -> None:
    """Replace the tensors in dicts of an averaged model that share the memory of cut tensors.

    It may keep a state dict of its network and update it in place.
    """
    by_memory = {(swap.before[0].data_ptr(), swap.before[0].shape): swap for swap in swaps}
    for name, value in vars(average).items():
        if isinstance(value, dict) and name not in _OWN:
            # A copy of the dict is changed, so that the dict is as it was after a failure.
            changed = copy.copy(value)
            for key, tensor in value.items():
                if type(tensor) is Tensor:
                    swap = by_memory.get((tensor.data_ptr(), tensor.shape))
                    if swap is not None:
                        changed[key] = swap.tensor.detach()
            vars(average)[name] = changed
