"""Surgery: cut parameters, buffers, gradients and optimizer states, all of them or none."""

from __future__ import annotations

import contextlib
import copy
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from easypruner.base.modules import enter_mode_again, keeps_for_mode
from easypruner.errors import CutError
from easypruner.graph.cutting.handlers import TORCH_HANDLERS, LayerHandler, Resize, find_resizes
from easypruner.graph.cutting.optimizer_handler import like_layout
from easypruner.graph.cutting.optimizer_states import OptimizerStates, StateChange
from easypruner.graph.recording.inventory import (
    Attributes,
    Inventory,
    modules_of,
    set_attributes,
)
from easypruner.graph.recording.parametrized import Normed, refresh, weight_norms
from easypruner.graph.recording.snapshot import Snapshot
from easypruner.graph.recording.wrappers import find_copy

Kept = Mapping[tuple[str, int], Tensor]
"""(parameter or buffer, dimension) -> the indices that stay, int64, ascending."""

Cuts = Sequence[tuple[int, Tensor]]
"""(dimension, indices that stay) for each dimension of a tensor that loses indices."""

_LARGE = 1 << 17
"""The number of elements from which two dimensions are cut at once."""
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
    networks = [inventory, *(_find_alike(other, inventory, kept) for other in copies)]
    # All that asks the modules comes first. They leave the cache of the processor when the weights
    # are read.
    modules = [module for network in networks for module in network.modules.values()]
    hooked = [module for module in modules if module._forward_pre_hooks]
    norms = [list(weight_norms(network.modules)) for network in networks]
    cuts = _cuts_of(kept)
    with contextlib.ExitStack() as undo:
        undo.callback(Snapshot(copies).restore)
        resized = [
            module
            for network in {id(n.model): n for n in networks}.values()
            for module in _resize(network, cuts, handlers, attributes, undo)
        ]
        swaps: dict[int, _Swap] = {}
        for network, own in zip(networks, norms, strict=True):
            for swap in _plan_swaps(network, cuts, own, states or None):
                swaps.setdefault(id(swap.tensor), swap)
        begun: list[_Swap] = []
        undo.callback(_undo, begun)
        blank = functools.cache(_blank)
        for swap in swaps.values():
            begun.append(swap)
            swap.perform(blank)
        for other in copies:
            _repoint(other, list(swaps.values()))
        undo.callback(Snapshot(hooked).restore)
        refresh(hooked)
        stale = [module for module in resized if keeps_for_mode(module)]
        undo.callback(Snapshot(stale).restore)
        for module in stale:
            enter_mode_again(module)
        for module in resized:
            # Fast kernels need the weights of a recurrent layer in one piece of memory.
            if isinstance(module, nn.RNNBase):
                module.flatten_parameters()
        # Nothing has failed, so nothing is undone.
        undo.pop_all()


def _undo(swaps: Sequence[_Swap]) -> None:
    blank = functools.cache(_blank)
    for swap in reversed(swaps):
        swap.undo(blank)


def _find_alike(other: nn.Module, original: Inventory, kept: Kept) -> Inventory:
    """Return the network of the class and shapes of the original inside a copy.

    Tensors in plain attributes may be what a pass has left there. They count if they are cut.
    """
    is_cut = {name for name, _ in kept}
    network = Inventory(find_copy(other, original.model))
    shapes, expected = (
        {
            name: tuple(tensor.shape)
            for name, tensor in n.tensors.items()
            if name not in n.plain or name in is_cut
        }
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
    cuts: Mapping[str, Cuts],
    handlers: Sequence[LayerHandler],
    attributes: Attributes,
    undo: contextlib.ExitStack,
) -> list[nn.Module]:
    """Set the numbers of a network's modules for the new shapes of its tensors.

    Returns:
        the modules whose tensors change.
    """
    modules = network.modules
    undo.callback(Snapshot([modules[path] for path, _ in attributes]).restore)
    set_attributes(modules, attributes)
    shapes = {name: _shape_after(network.tensors[name], own) for name, own in cuts.items()}
    changed = network.by_layer(shapes)
    resizes = find_resizes(modules, changed, handlers)
    simple: list[nn.Module] = []
    others: list[nn.Module] = []
    for resize in resizes:
        (simple if _sets_numbers_only(resize) else others).append(resize.layer)
    undo.callback(Snapshot(simple, contents=False).restore)
    # Another handler may change the parts of a layer as well.
    undo.callback(Snapshot(_with_parts(others)).restore)
    for resize in resizes:
        resize.perform()
    return [modules[path] for path in changed]


def _sets_numbers_only(resize: Resize) -> bool:
    """Return whether a handler only sets attributes of a layer, as those of torch's layers do."""
    is_of_torch = type(resize.layer).__module__.startswith('torch.nn.modules.')
    return is_of_torch and resize.handler in TORCH_HANDLERS


def _with_parts(modules: Iterable[nn.Module]) -> Iterable[nn.Module]:
    """Return modules and all their parts, each once."""
    found: dict[int, nn.Module] = {}
    for module in modules:
        if module._modules:
            found.update((id(part), part) for part in modules_of(module).values())
        else:
            found[id(module)] = module
    return found.values()


def _shape_after(tensor: Tensor, cuts: Cuts) -> torch.Size:
    sizes = list(tensor.shape)
    for dim, index in cuts:
        sizes[dim] = index.numel()
    return torch.Size(sizes)


def _select(value: Tensor, cuts: Cuts) -> Tensor:
    """Return a tensor cut along some of its dimensions."""
    if len(cuts) == 2 and _has_large_blocks(value):
        kept = dict(cuts)
        if kept.keys() == {0, 1}:
            return _select_blocks(value, kept[0], kept[1])
    result = value
    for dim, index in cuts:
        result = result.index_select(dim, index)
    return result if value.dim() < 4 else like_layout(result, value)


def _has_large_blocks(value: Tensor) -> bool:
    """Return whether two dimensions of a tensor are cut faster at once than one after the other."""
    return (
        value.dim() > 2
        and value.layout is torch.strided
        and value.numel() >= max(_LARGE, 4 * value.shape[0] * value.shape[1])
        and value.is_contiguous()
    )


def _select_blocks(value: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return a tensor cut along its first two dimensions, in one pass over its memory."""
    blocks = (rows[:, None] * value.shape[1] + columns).flatten()
    selected = value.flatten(0, 1).index_select(0, blocks)
    return selected.view(len(rows), len(columns), *value.shape[2:])


def _select_alike(value: Tensor, cuts: Cuts, sizes: torch.Size) -> Tensor:
    """Return a tensor cut along those dimensions in which it has the given sizes."""
    return _select(value, [(dim, index) for dim, index in cuts if value.shape[dim] == sizes[dim]])


class _Swap(NamedTuple):
    """The new content of one tensor, computed before anything is changed.

    Attributes:
        tensor: the parameter or buffer.
        data: its new content.
        grad: its new gradient.
        states: the changes of optimizer states.
        before: the old content.
        grad_before: the old gradient.
    """

    tensor: Tensor
    data: Tensor
    grad: Tensor | None
    states: tuple[StateChange, ...]
    before: Tensor
    grad_before: Tensor | None

    def perform(self, blank: Blank) -> None:
        _set(self.tensor, self.data, self.grad, blank)
        for change in self.states:
            change.state.update(change.new)

    def undo(self, blank: Blank) -> None:
        _set(self.tensor, self.before, self.grad_before, blank)
        for change in self.states:
            change.state.update(change.old)


def _plan_swap(
    name: str,
    tensor: Tensor,
    cuts: Cuts,
    states: OptimizerStates | None,
    on: Callable[[Tensor, torch.device], Tensor],
) -> _Swap:
    content, grad = tensor.detach(), tensor.grad
    changes = () if states is None else tuple(states.plan(name, tensor, dict(cuts)))
    if not tensor.is_cpu:
        cuts = [(dim, on(index, tensor.device)) for dim, index in cuts]
    if tensor.is_inference():  # its content must be made in inference mode as well
        with torch.inference_mode():
            data = _select(content, cuts)
    else:
        data = _select(content, cuts)
    new_grad = None if grad is None else _select_alike(grad, cuts, tensor.shape)
    return _Swap(tensor, data, new_grad, changes, content, grad)


Blank = Callable[[torch.dtype, torch.device], Tensor]
"""Returns an empty tensor of another dtype on a device."""


def _blank(dtype: torch.dtype, device: torch.device) -> Tensor:
    other = torch.float32 if dtype == torch.float16 else torch.float16
    return torch.empty(0, dtype=other, device=device)


def _set(tensor: Tensor, data: Tensor, grad: Tensor | None, blank: Blank) -> None:
    """Give a tensor another content and gradient."""
    if tensor.grad is not None:
        tensor.grad = None
    if tensor.requires_grad and not tensor.is_inference():
        # As long as an old autograd graph is alive (a variable may hold a loss), so is the node
        # that accumulates this gradient, and it expects the old shape. A change of the dtype
        # makes autograd forget the node.
        tensor.data = blank(data.dtype, data.device)
    tensor.data = data
    if grad is not None:
        tensor.grad = grad


def _cuts_of(kept: Kept) -> dict[str, list[tuple[int, Tensor]]]:
    """Return name -> its cuts."""
    cuts: dict[str, list[tuple[int, Tensor]]] = {}
    for (name, dim), index in kept.items():
        if name in cuts:
            cuts[name].append((dim, index))
        else:
            cuts[name] = [(dim, index)]
    return cuts


def _plan_swaps(
    network: Inventory,
    cuts: Mapping[str, Cuts],
    norms: Iterable[Normed],
    states: OptimizerStates | None,
) -> Iterable[_Swap]:
    tensors = network.tensors
    # Dimensions share indices, and each copy to a GPU waits for it.
    on = functools.cache(Tensor.to)
    swaps = {name: _plan_swap(name, tensors[name], own, states, on) for name, own in cuts.items()}
    for normed in norms:
        if all(dim == normed.dim for dim, _ in cuts.get(normed.direction, ())):
            continue
        length, direction = tensors[normed.length], tensors[normed.direction]
        swap = swaps.get(normed.length) or _plan_swap(normed.length, length, (), states, on)
        ratio = normed.ratio(length.detach(), direction.detach())
        own = [(dim, on(index, ratio.device)) for dim, index in cuts.get(normed.length, ())]
        ratio = _select_alike(ratio, own, length.shape)
        data = normed.rescaled(ratio, swaps[normed.direction].data).to(length.dtype)
        swaps[normed.length] = swap._replace(data=data)
    return swaps.values()


def _repoint(average: nn.Module, swaps: Sequence[_Swap]) -> None:
    """Replace the tensors in dicts of an averaged model that share the memory of cut tensors.

    It may keep a state dict of its network and update it in place.
    """
    by_memory = {(swap.before.data_ptr(), swap.before.shape): swap for swap in swaps}
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
