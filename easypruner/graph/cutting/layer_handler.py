"""LayerHandler: keeps a module's own numbers true after a cut."""

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
    """Keeps a module's own numbers true after a cut (out_channels, groups, num_heads, ...).

    It is made without arguments. Of all handlers for a module the first is asked: those given to
    :func:`easypruner.trace`, then those of plugins, then those for torch's own layers.

    Attributes:
        handles: types of modules, or their full names, such as ``'timm.layers.norm.LayerNorm2d'``:
            a name needs no import. Modules of types derived from these are handled as well.
    """

    handles: ClassVar[tuple[type[nn.Module] | str, ...]] = ()

    @abstractmethod
    def resize(self, layer: nn.Module, shapes: Shapes) -> None:
        """Set the numbers of ``layer`` for new parameter shapes.

        Called while the parameters still have their old shapes.

        Args:
            layer: the module, an instance of one of :attr:`handles`.
            shapes: local name -> new shape of each of the layer's own parameters and buffers that
                change shape, and of each weight that is computed from such (a parametrized one).
        """


def fault_of_handles(handler: LayerHandler) -> str:
    """Return what is wrong with ``handles`` of a handler, as in 'handles 3; expected ...'; or ''.

    >>> class Own(LayerHandler):
    ...     handles = ('PReLU',)
    ...     def resize(self, layer, shapes): ...
    >>> fault_of_handles(Own())
    "handles 'PReLU', which is no full name; expected one such as 'package.module.PReLU'"
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
                    f'handles {handled!r}, which is no full name; expected one such as '
                    f"'package.module.{handled}'"
                )
        elif not isinstance(handled, type):
            return f'handles {handled!r}; expected a type of modules or its full name'
    return ''
