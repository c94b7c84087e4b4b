"""Surgery: cutting parameters, buffers, gradients and optimizer state, all of it or none."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from easypruner.errors import CutError
from easypruner.graph.cutting.handlers import resize_layers
from easypruner.graph.cutting.layer_handler import LayerHandler
from easypruner.graph.recording.attributes import Attributes, restored_on_error, set_attributes
from easypruner.graph.recording.inventory import Inventory
from easypruner.graph.recording.parametrized import refresh, weight_norms
from easypruner.graph.recording.wrappers import inside

Kept = Mapping[tuple[str, int], Tensor]
"""(parameter or buffer, dim) -> the indices that stay, int64, ascending."""

_OWN = ('_parameters', '_buffers', '_modules')


@torch.inference_mode(False)
@torch.no_grad()
def cut(
    inventory: Inventory,
    kept: Kept,
    handlers: Sequence[LayerHandler],
    attributes: Attributes,
    optimizers: Sequence[Optimizer] = (),
    copies: Sequence[nn.Module] = (),
) -> None:
    """Cut a model in place to the kept indices; on any failure everything is left as it was.

    Parameters stay the same objects, so ties, hooks and the optimizers' groups hold. Gradients
    and optimizer states are cut with their parameters. A weight under weight norm keeps its
    values: its lengths are those of what is left of its directions.

    Args:
        inventory: of the network.
        kept: what stays; a dimension that is not named stays whole. Tied tensors go by their
            first name.
        handlers: keep the modules' own numbers true, in order of precedence.
        attributes: plain attributes of modules to set besides.
        optimizers: whose states are to be cut as well.
        copies: networks of the same class and shapes, or averages that hold one, to be cut alike.

    Raises:
        CutError: a copy is another network; an optimizer's state cannot be cut.
    """
    networks = [inventory, *(_alike(other, inventory) for other in copies)]
    swaps: dict[int, _Swap] = {}
    for network in networks:
        for swap in _plan(network, kept, optimizers):
            swaps.setdefault(id(swap.tensor), swap)
    with contextlib.ExitStack() as stack:
        modules = [module for network in networks for module in network.modules.values()]
        stack.enter_context(restored_on_error([*modules, *copies]))
        for network in {id(n.model): n for n in networks}.values():
            _resize(network, swaps, handlers, attributes)
        stack.enter_context(_performed(list(swaps.values())))
        for other in copies:
            _repoint(other, list(swaps.values()))
        refresh(modules)
        _flatten(modules)


def _alike(other: nn.Module, original: Inventory) -> Inventory:
    """Return the network in ``other``, which has the shapes of the original."""
    network = Inventory(inside(other, original.model))
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
    shapes = {
        name: swaps[id(tensor)].data.shape
        for name, tensor in network.tensors.items()
        if id(tensor) in swaps
    }
    set_attributes(network.modules, attributes)
    resize_layers(network.modules, network.by_layer(shapes), handlers)


Cuts = Sequence[tuple[int, Tensor]]
"""(dim, indices that stay) for each dimension of a tensor that loses some."""


def _select(value: Tensor, cuts: Cuts, sizes: torch.Size) -> Tensor:
    """Cut a tensor along the dimensions in which it has the given sizes."""
    result = value
    for dim, index in cuts:
        if value.shape[dim] == sizes[dim]:
            result = result.index_select(dim, index.to(value.device))
    return result if value.is_sparse else _in_layout_of(value, result)


def _in_layout_of(tensor: Tensor, result: Tensor) -> Tensor:
    for layout, dims in ((torch.channels_last, 4), (torch.channels_last_3d, 5)):
        # A tensor that is contiguous either way has no layout of its own to keep.
        plain = tensor.dim() != dims or tensor.is_contiguous()
        if not plain and tensor.is_contiguous(memory_format=layout):
            return result.contiguous(memory_format=layout)
    return result


@dataclass(frozen=True)
class _Swap:
    """The new content of one tensor, computed before anything is changed.

    Attributes:
        tensor: the parameter or buffer.
        data: its new content.
        grad: its new gradient.
        states: (optimizer's entries for the tensor, the new ones among them).
        before: content and gradient as they were.
    """

    tensor: Tensor
    data: Tensor
    grad: Tensor | None
    states: tuple[tuple[dict[str, Any], dict[str, Tensor]], ...]
    before: tuple[Tensor, Tensor | None] = field(repr=False)

    @classmethod
    def plan(cls, name: str, tensor: Tensor, cuts: Cuts, optimizers: Sequence[Optimizer]) -> _Swap:
        content = tensor.detach()
        # A tensor made in inference mode must go on being one.
        with torch.inference_mode(tensor.is_inference()):
            data = _select(content, cuts, tensor.shape)
        return cls(
            tensor=tensor,
            data=data,
            grad=None if tensor.grad is None else _select(tensor.grad, cuts, tensor.shape),
            states=tuple(
                (optimizer.state[tensor], _cut_state(optimizer, name, tensor, cuts))
                for optimizer in optimizers
                if tensor in optimizer.state
            ),
            before=(content, tensor.grad),
        )

    def perform(self) -> None:
        self._set(self.data, self.grad)
        for held, new in self.states:
            held.update(new)

    def undo(self, states: Sequence[dict[str, Any]]) -> None:
        self._set(*self.before)
        for (held, _), old in zip(self.states, states, strict=True):
            held.update(old)

    def _set(self, data: Tensor, grad: Tensor | None) -> None:
        self.tensor.grad = None
        if self.tensor.requires_grad and not self.tensor.is_inference():
            # As long as a graph of the past is alive (a loss that a variable still holds), so is
            # the node that collects this gradient, and it expects the old shape. Another dtype
            # makes autograd forget it.
            other = torch.float32 if data.dtype == torch.float16 else torch.float16
            self.tensor.data = torch.empty(0, dtype=other, device=data.device)
        self.tensor.data = data
        self.tensor.grad = grad


def _cut_state(optimizer: Optimizer, name: str, tensor: Tensor, cuts: Cuts) -> dict[str, Tensor]:
    """Return the entries of an optimizer's state that follow a cut; scalars do not."""
    result = {}
    for key, value in optimizer.state[tensor].items():
        if not isinstance(value, Tensor) or value.numel() == 1:
            continue
        # Factored moments have size 1 where they are summed over.
        sizes = list(zip(value.shape, tensor.shape, strict=False))
        if value.dim() != tensor.dim() or any(size not in (1, whole) for size, whole in sizes):
            raise CutError(
                f'{type(optimizer).__name__} keeps {key!r} of shape {tuple(value.shape)} for '
                f'{name!r} of shape {tuple(tensor.shape)}: it cannot be cut along; build the '
                'optimizer after the cut'
            )
        result[key] = _select(value, cuts, tensor.shape)
    return result


def _plan(network: Inventory, kept: Kept, optimizers: Sequence[Optimizer]) -> Iterator[_Swap]:
    tensors = network.tensors
    cuts: dict[str, list[tuple[int, Tensor]]] = {}
    for (name, dim), index in kept.items():
        cuts.setdefault(name, []).append((dim, index))
    swaps = {
        name: _Swap.plan(name, tensors[name], parts, optimizers) for name, parts in cuts.items()
    }
    for normed in weight_norms(network.modules):
        if all(dim == normed.dim for dim, _ in cuts.get(normed.direction, ())):
            continue
        length, direction = tensors[normed.length], tensors[normed.direction]
        swap = swaps.get(normed.length) or _Swap.plan(normed.length, length, (), optimizers)
        ratio = normed.ratio(length.detach(), direction.detach())
        ratio = _select(ratio, cuts.get(normed.length, ()), length.shape)
        data = normed.rescaled(ratio, swaps[normed.direction].data).to(length.dtype)
        swaps[normed.length] = replace(swap, data=data)
    yield from swaps.values()


@contextlib.contextmanager
def _performed(swaps: Sequence[_Swap]) -> Iterator[None]:
    """Perform all swaps; undo them if any, or what follows, fails."""
    states = [[{key: held[key] for key in new} for held, new in swap.states] for swap in swaps]
    done = 0
    try:
        for swap in swaps:
            done += 1
            swap.perform()
        yield
    except BaseException:
        for swap, old in zip(swaps[:done], states[:done], strict=True):
            swap.undo(old)
        raise


def _repoint(average: nn.Module, swaps: Sequence[_Swap]) -> None:
    """Let the dicts of an average hold the new tensors where they held the old memory.

    It may keep a state dict of its network, to update it in place.
    """
    at = {(swap.before[0].data_ptr(), swap.before[0].shape): swap for swap in swaps}
    for name, value in vars(average).items():
        if isinstance(value, dict) and name not in _OWN:
            # Another dict, so that the one that was there is still as it was after a failure.
            pointed = copy.copy(value)
            for key, held in value.items():
                if type(held) is Tensor and (held.data_ptr(), held.shape) in at:
                    pointed[key] = at[held.data_ptr(), held.shape].tensor.detach()
            vars(average)[name] = pointed


def _flatten(modules: Iterable[nn.Module]) -> None:
    """Lay the weights of recurrent layers out in one piece again, as fast kernels want them."""
    for module in modules:
        if isinstance(module, nn.RNNBase):
            module.flatten_parameters()
