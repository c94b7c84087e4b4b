"""What kind of network a model is: a network of convolutions, or another one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from easypruner.base.nested import tensors_in
from easypruner.graph.recording.inventory import without_fast_path
from easypruner.graph.recording.tape import ExampleInputs, call_arguments


@torch.no_grad()
def kind_of(model: nn.Module, example_inputs: ExampleInputs) -> str:
    """Return ``'cnn'`` or ``'other'``, depending on the operations of a forward pass.

    A network is other if it mixes positions by something other than convolutions and pools: a
    matrix product of two activations (attention, correlation volumes), a linear layer over a
    sequence of tokens (an input of three dimensions), or a recurrent layer.
    """
    found: list[str] = []

    def watch(module: nn.Module, args: tuple[Any, ...]) -> None:
        if isinstance(module, nn.RNNBase) or (args and args[0].dim() == 3):
            found.append(type(module).__name__)

    layers = [m for m in model.modules() if isinstance(m, nn.Linear | nn.RNNBase)]
    hooks = [layer.register_forward_pre_hook(watch) for layer in layers]
    args, kwargs = call_arguments(example_inputs)
    products = _ProductsOfActivations([tensor for _, tensor in tensors_in(example_inputs)])
    try:
        with without_fast_path(), products:
            model(*args, **kwargs)
    finally:
        for hook in hooks:
            hook.remove()
    return 'other' if found or products.met else 'cnn'


class _ProductsOfActivations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A mode that detects matrix products of two tensors that both depend on the inputs."""

    def __init__(self, inputs: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.met = False
        # Tensors are stored, so that no new tensor gets the id of a deleted one.
        self._activations = {id(tensor): tensor for tensor in inputs}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        depend = [tensor for tensor in tensors if id(tensor) in self._activations]
        if depend:
            outputs = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
            self._activations.update((id(tensor), tensor) for tensor in outputs)
        name = func.overloadpacket.__name__
        product = name in ('mm', 'bmm', 'addmm', 'baddbmm') and len(depend) > 1
        self.met |= product or 'scaled_dot_product' in name
        return result
