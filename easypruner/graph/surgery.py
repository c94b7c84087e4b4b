"""Surgery: cutting parameters, buffers, gradients and optimizer state, all of it or none."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from easypruner.contracts import LayerHandler
from easypruner.graph.attributes import Attributes, attributes_restored, set_attributes
from easypruner.graph.handlers import resize_layers
from easypruner.graph.tape import all_shapes, named_tensors

Kept = Mapping[tuple[str, int], Tensor]
"""(parameter or buffer, dim) -> the indices that stay, int64, ascending."""


def cut(
    model: nn.Module,
    kept: Kept,
    handlers: Sequence[LayerHandler],
    attributes: Attributes,
    optimizer: Optimizer | None = None,
) -> None:
    """Cut ``model`` in place to the kept indices; on any failure it is left as it was.

    Parameters stay the same objects, so ties, hooks and the optimizer's groups hold. Gradients
    and those optimizer states that have a parameter's shape are cut with it.

    Args:
        model: the network.
        kept: what stays; a dimension that is not named stays whole. Tied tensors go by their
            first name.
        handlers: keep the modules' own numbers true, in order of precedence.
        attributes: plain attributes of modules to set besides.
        optimizer: whose state is to be cut as well.
    """
    tensors = named_tensors(model)
    selections = _by_tensor(kept)
    swaps = [_Swap.plan(tensors[name], select, optimizer) for name, select in selections.items()]
    new_shapes = {name: swap.data.shape for name, swap in zip(selections, swaps, strict=True)}
    with attributes_restored(model, on_success=False):
        resize_layers(model, all_shapes(model, new_shapes), handlers)
        set_attributes(model, attributes)
    for swap in swaps:
        swap.perform(optimizer)


Select = Callable[[Tensor], Tensor]


def _by_tensor(kept: Kept) -> dict[str, Select]:
    dims: dict[str, list[tuple[int, Tensor]]] = {}
    for (name, dim), index in kept.items():
        dims.setdefault(name, []).append((dim, index))
    return {name: _selector(parts) for name, parts in dims.items()}


def _selector(parts: Sequence[tuple[int, Tensor]]) -> Select:
    def select(tensor: Tensor) -> Tensor:
        result = tensor
        for dim, index in parts:
            result = result.index_select(dim, index.to(tensor.device))
        return _in_layout_of(tensor, result)

    return select


def _in_layout_of(tensor: Tensor, result: Tensor) -> Tensor:
    for layout, dims in ((torch.channels_last, 4), (torch.channels_last_3d, 5)):
        # A tensor that is contiguous either way has no layout of its own to keep.
        plain = tensor.dim() != dims or tensor.is_contiguous()
        if not plain and tensor.is_contiguous(memory_format=layout):
            return result.contiguous(memory_format=layout)
    return result


@dataclass(frozen=True)
class _Swap:
    """The new content of one tensor, computed before anything is changed."""

    tensor: Tensor
    data: Tensor
    grad: Tensor | None
    state: dict[str, Tensor]

    @classmethod
    def plan(cls, tensor: Tensor, select: Select, optimizer: Optimizer | None) -> _Swap:
        state = optimizer.state.get(tensor, {}) if optimizer is not None else {}
        with torch.no_grad():
            return cls(
                tensor=tensor,
                data=select(tensor.detach()),
                grad=None if tensor.grad is None else select(tensor.grad),
                state={
                    key: select(value)
                    for key, value in state.items()
                    if isinstance(value, Tensor) and value.shape == tensor.shape
                },
            )

    def perform(self, optimizer: Optimizer | None) -> None:
        self.tensor.grad = None
        self.tensor.data = self.data
        self.tensor.grad = self.grad
        if self.state and optimizer is not None:
            optimizer.state[self.tensor].update(self.state)
