"""LayerHandler: keeps a module's own numbers true after a cut."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import nn

from easypruner.contracts.component import Component


class LayerHandler(Component):
    """Keeps a module's own numbers true after a cut (out_channels, groups, num_heads, ...).

    It is made without arguments. Of all handlers for a module the first is asked: those given to
    :func:`easypruner.trace`, then those of plugins, then those for torch's own layers.

    Attributes:
        handles: types of modules, or their full names, such as ``'timm.layers.norm.LayerNorm2d'``:
            a name needs no import. Modules of types derived from these are handled as well.
    """

    handles: ClassVar[tuple[type[nn.Module] | str, ...]] = ()

    @abstractmethod
    def resize(self, layer: nn.Module, shapes: Mapping[str, torch.Size]) -> None:
        """Set the numbers of ``layer`` for new parameter shapes.

        Called while the parameters still have their old shapes.

        Args:
            layer: the module, an instance of one of :attr:`handles`.
            shapes: local name -> new shape of each of the layer's own parameters and buffers that
                change shape, and of each weight that is computed from such (a parametrized one).
        """
