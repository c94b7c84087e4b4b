"""Inventory: a model's modules, parameters and buffers by name, from one walk over it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Slot:
    """A place where a tensor hangs.

    Attributes:
        holder: the dict of the module that holds it.
        path: of the module.
        local: the tensor's name in the module.
        name: the first of all the dotted names that the tensor has in the model.
    """

    holder: dict[str, Any]
    path: str
    local: str
    name: str


class Inventory:
    """What a model consists of.

    Attributes:
        model: the network.
        modules: dotted path -> module, each module under its first path.
        tensors: dotted name -> parameter or buffer; tied tensors once, under the first name,
            parameters before buffers.
        slots: every place where a tensor hangs.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.modules = dict(model.named_modules())
        self.tensors: dict[str, Tensor] = {}
        self.slots: list[Slot] = []
        first: dict[int, str] = {}
        for kind in ('_parameters', '_buffers'):
            for path, module in self.modules.items():
                holder = module.__dict__[kind]
                for local, tensor in holder.items():
                    if tensor is not None:
                        name = first.setdefault(id(tensor), f'{path}.{local}' if path else local)
                        self.tensors.setdefault(name, tensor)
                        self.slots.append(Slot(holder, path, local, name))

    def by_layer(self, shapes: Mapping[str, torch.Size]) -> dict[str, dict[str, torch.Size]]:
        """Return module path -> local name -> shape, for every name that a tied tensor has."""
        layers: dict[str, dict[str, torch.Size]] = {}
        for slot in self.slots:
            shape = shapes.get(slot.name)
            if shape is not None:
                layers.setdefault(slot.path, {})[slot.local] = shape
        return layers
