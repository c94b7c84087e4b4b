"""Transform: a change of a network that its weights do not tell, and how it is repeated."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from easypruner.base.component import Component
from easypruner.base.json_fields import Field
from easypruner.graph.cutting.handlers import LayerHandler


class Transform(Component):
    """A change of a network that its weights do not tell, such as a cut or a quantization.

    The network of a run is the original one, changed by one transform after the other. Each is
    kept as JSON. From it the network is rebuilt before its weights are loaded.
    """

    @abstractmethod
    def apply(self, model: nn.Module, handlers: Sequence[LayerHandler]) -> nn.Module:
        """Change a model in place, and return it or the model that replaces it.

        Its parameters and buffers need their final shapes and dtypes. Their values do not matter,
        because weights are loaded next.

        Args:
            model: the model as the transforms before this one leave it.
            handlers: layer handlers, including those of plugins.

        Raises:
            RecordError: the model is not the one that was transformed.
        """

    @abstractmethod
    def to_json(self) -> Mapping[str, Any]:
        """Return the content from which :meth:`from_json` makes the transform, as JSON values."""

    @classmethod
    @abstractmethod
    def from_json(cls, content: Field) -> Transform:
        """Return the transform of which :meth:`to_json` returned the content.

        Args:
            content: the content of a file that may be damaged. Its methods check what they return.

        Raises:
            RecordError: the content is damaged.
        """

    def then(self, later: Transform) -> Transform | None:
        """Return one transform that does what this and a later one do; None if there is none."""
        return None


def check_header(content: Field, kind: str, version: int) -> None:
    """Raise the error of ``content`` unless it is a file of a kind and a version of its format."""
    if content['kind'].value != kind:
        content['kind'].fail(repr(kind))
    if content['format'].value != version:
        content['format'].fail(f'{version}, which this version reads')
