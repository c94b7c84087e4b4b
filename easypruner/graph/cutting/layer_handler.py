"""LayerHandler: sets a module's own numbers, such as ``out_channels``, after a cut."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import nn

from easypruner.base.component import Component

Shapes = Mapping[str, torch.Size]
"""Local name of a layer's tensor -> its new shape."""


class LayerHandler(Component):
    """Sets a module's own numbers after a cut (out_channels, groups, num_heads, ...).

    A handler is created without arguments. Each module has one handler, the first that fits: those
    given to :func:`easypruner.trace` come first, then those of plugins, then those for torch's own
    layers.

    Attributes:
        handles: types of modules, or their full names, such as ``'timm.layers.norm.LayerNorm2d'``.
            A name needs no import. Subclasses are handled as well.
    """

    handles: ClassVar[tuple[type[nn.Module] | str, ...]] = ()

    @abstractmethod
    def resize(self, layer: nn.Module, shapes: Shapes) -> None:
        """Set the numbers of a layer for the new shapes of its tensors.

        The parameters still have their old shapes when this is called.

        Args:
            layer: the module, an instance of one of :attr:`handles`.
            shapes: local name -> new shape, for each of the layer's own parameters and buffers
                whose shape changes, and for each weight that is computed from such tensors.
        """


def fault_of_handles(handler: LayerHandler) -> str:
    """Return what is wrong with ``handles`` of a handler; '' if nothing is.

    >>> class Own(LayerHandler):
    ...     handles = ('PReLU',)
    ...     def resize(self, layer, shapes): ...
    >>> fault_of_handles(Own())
    "handles 'PReLU', which is not a full name; expected one such as 'package.module.PReLU'"
    """
    handles = handler.handles
    if not isinstance(handles, tuple | list | set | frozenset) or not handles:
        shown = handles.__qualname__ if isinstance(handles, type) else repr(handles)
        advice = f', as in handles = ({shown},)' if isinstance(handles, type) else ''
        return f'handles {shown}; expected a tuple of module types or of their full names{advice}'
    for handled in handles:
        if isinstance(handled, str):
            if '.' not in handled:
                return (
                    f'handles {handled!r}, which is not a full name; expected one such as '
                    f"'package.module.{handled}'"
                )
        elif not isinstance(handled, type):
            return f'handles {handled!r}; expected a type of modules or its full name'
    return ''
