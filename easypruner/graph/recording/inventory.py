"""The inventory of a model: its modules, parameters and buffers by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Slot:
    """An entry of a module that has a parameter or buffer.

    Attributes:
        entries: the module's dict of parameters, or of buffers.
        path: the path of the module.
        local: the name of the entry.
        name: the first of the dotted names that the tensor has in the model.
    """

    entries: dict[str, Any]
    path: str
    local: str
    name: str


class Inventory:
    """The modules and tensors of a model. A tied tensor has several slots and one name.

    Attributes:
        model: the network.
        modules: dotted path -> module. A module that is registered twice has its first path.
        tensors: dotted name -> parameter or buffer, parameters first.
        slots: the entries of all modules.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.modules = dict(model.named_modules())
        self.tensors: dict[str, Tensor] = {}
        self.slots: list[Slot] = []
        first: dict[int, str] = {}
        for kind in ('_parameters', '_buffers'):
            for path, module in self.modules.items():
                entries = module.__dict__[kind]
                for local, tensor in entries.items():
                    if tensor is not None:
                        name = first.setdefault(id(tensor), dotted_name(path, local))
                        self.tensors.setdefault(name, tensor)
                        self.slots.append(Slot(entries, path, local, name))

    def by_layer(self, shapes: Mapping[str, torch.Size]) -> dict[str, dict[str, torch.Size]]:
        """Return path of a module -> local name -> shape, for all slots of the named tensors."""
        layers: dict[str, dict[str, torch.Size]] = {}
        for slot in self.slots:
            shape = shapes.get(slot.name)
            if shape is not None:
                layers.setdefault(slot.path, {})[slot.local] = shape
        return layers


def dotted_name(path: str, local: str) -> str:
    """Return the dotted name of a tensor or module from the path of the module that has it.

    >>> dotted_name('stem.0', 'weight'), dotted_name('', 'weight')
    ('stem.0.weight', 'weight')
    """
    return f'{path}.{local}' if path else local


def named_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Return name -> tensor, for the parameters and buffers of a module and its parts."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}
