"""Unprunable dimensions: weights that must stay whole because of how they are computed."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.utils.parametrizations import _Orthogonal
from torch.nn.utils.parametrize import ParametrizationList

from easypruner.graph.coupling.axes import Dim
from easypruner.graph.recording.inventory import (
    Inventory,
    dotted_name,
    named_tensors,
    own_tensors,
)

_SPECIAL = (ParametrizationList, nn.LSTM)
_ORTHOGONAL = 'an orthogonal weight is computed from all its rows and columns together'
_PROJECTED = 'torch recognizes a projection of an LSTM only if it differs from the hidden size'


def find_unprunable(inventory: Inventory) -> dict[Dim, str]:
    """Return dimension of a parameter or buffer -> the reason for which all its indices stay."""
    found: dict[Dim, str] = {}
    if not any(issubclass(kind, _SPECIAL) for kind in inventory.kinds):
        return found
    for path, module in inventory.modules.items():
        if isinstance(module, ParametrizationList) and _is_orthogonal(module):
            for name, tensor in named_tensors(module).items():
                dims = range(tensor.dim())
                found |= {(dotted_name(path, name), dim): _ORTHOGONAL for dim in dims}
        if isinstance(module, nn.LSTM) and module.proj_size:
            names = [name for name, _ in own_tensors(module) if 'weight_hr' in name]
            found |= {(dotted_name(path, name), 1): _PROJECTED for name in names}
    return found


def is_vector(tensor: Tensor) -> bool:
    """Return whether a tensor is a vector that is not trained, as that of a power iteration."""
    return not tensor.requires_grad and max(tensor.shape, default=1) == tensor.numel() > 1


def _is_orthogonal(parametrizations: ParametrizationList) -> bool:
    return any(isinstance(part, _Orthogonal) for part in parametrizations.children())
