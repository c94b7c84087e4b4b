"""Folding: a batch norm right after a convolution or linear layer becomes a part of its weights."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import Node

_LAYERS = (
    torch.ops.aten.conv1d.default,
    torch.ops.aten.conv2d.default,
    torch.ops.aten.conv3d.default,
    torch.ops.aten.linear.default,
)
_NORM = torch.ops.aten.batch_norm.default
_TRAINING, _EPSILON = 5, 7
"""The positions of two arguments of a batch norm."""


def fold_batch_norms(program: ExportedProgram) -> int:
    """Fold batch norms into the layers before them, in place; return how many.

    A layer is left alone whose output or weights have another use, or whose batch norm has no
    scale.

    Args:
        program: the program of a network in evaluation mode.
    """
    signature = program.graph_signature
    names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    # Parameters that are shared have a placeholder each.
    shared = {name for name, count in _owners(program, names).items() if count > 1}
    folded = 0
    for norm in list(program.graph.nodes):
        if norm.target is not _NORM or norm.args[_TRAINING]:
            continue
        layer = norm.args[0]
        parts = _Parts.of(layer, norm, names)
        if parts is None or shared & {parts.weight, parts.layer_bias, parts.shift}:
            continue
        parts.fold(program.state_dict, float(norm.args[_EPSILON]))
        bias = norm.args[2] if parts.layer_bias is None else layer.args[2]
        layer.args = (*layer.args[:2], bias, *layer.args[3:])
        norm.replace_all_uses_with(layer)
        program.graph.erase_node(norm)
        folded += 1
    program.graph_module.recompile()
    return folded


def _owners(program: ExportedProgram, names: dict[str, str]) -> Counter[str]:
    """Return name -> the number of names under which a program has the same tensor."""
    found = {n: program.state_dict[n].data_ptr() for n in names.values() if n in program.state_dict}
    uses = Counter(found.values())
    return Counter({name: uses[pointer] for name, pointer in found.items()})


class _Parts:
    """The names of the tensors of a layer and of the batch norm after it."""

    def __init__(self, weight: str, layer_bias: str | None, norm: tuple[str, ...]) -> None:
        self.weight, self.layer_bias = weight, layer_bias
        self.scale, self.shift, self.mean, self.variance = norm

    @classmethod
    def of(cls, layer: Any, norm: Node, names: dict[str, str]) -> _Parts | None:
        """Return the parts; None if the batch norm cannot be folded."""
        if not isinstance(layer, Node) or layer.target not in _LAYERS or len(layer.users) > 1:
            return None
        bias = layer.args[2] if len(layer.args) > 2 else None
        operands = (layer.args[1], *([] if bias is None else [bias]), *norm.args[1:5])
        nodes = [node for node in operands if isinstance(node, Node) and str(node.target) in names]
        if len(nodes) < len(operands) or any(len(node.users) > 1 for node in nodes):
            return None
        known = [names[str(node.target)] for node in nodes]
        return cls(known[0], None if bias is None else known[1], tuple(known[-4:]))

    def fold(self, state: dict[str, Any], epsilon: float) -> None:
        """Change the weights of the layer, and its bias or, in its place, the norm's."""
        weight, shift = state[self.weight], state[self.shift]
        scale = state[self.scale].double() / (state[self.variance].double() + epsilon).sqrt()
        before: Any = 0.0 if self.layer_bias is None else state[self.layer_bias].double()
        bias = shift.double() + (before - state[self.mean].double()) * scale
        rows = scale.reshape(-1, *[1] * (weight.dim() - 1))
        state[self.weight] = _like(weight.double() * rows, weight)
        state[self.layer_bias or self.shift] = _like(bias, shift)


def _like(value: Tensor, old: Tensor) -> Tensor:
    new = value.detach().to(old.dtype)
    return (
        torch.nn.Parameter(new, old.requires_grad) if isinstance(old, torch.nn.Parameter) else new
    )
