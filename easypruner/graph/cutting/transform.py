"""Transform: a change of a network that its weights alone do not tell, and how it is repeated."""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from easypruner.base.component import Component
from easypruner.base.json_fields import Field
from easypruner.graph.cutting.layer_handler import LayerHandler


class Transform(Component):
    """A change of a network that its weights alone do not tell: a cut, a quantization.

    The network of a run is the original one, changed by one transform after the other. Each is
    kept as JSON, from which the network is rebuilt before its weights are loaded.
    """

    @abstractmethod
    def apply(self, model: nn.Module, handlers: Sequence[LayerHandler]) -> nn.Module:
        """Change ``model`` in place, and return it or what stands in its place.

        What its parameters and buffers hold afterwards does not matter: weights are loaded next.

        Args:
            model: as the transforms before this one leave it.
            handlers: of layers, those of plugins among them.

        Raises:
            RecordError: the model is not the one that was transformed.
        """

    @abstractmethod
    def to_json(self) -> Mapping[str, Any]:
        """Return what :meth:`from_json` needs, as JSON can hold it."""

    @classmethod
    @abstractmethod
    def from_json(cls, content: Field) -> Transform:
        """Return the transform that :meth:`to_json` was called on.

        Args:
            content: from a file that nobody vouches for; its methods check what they return.

        Raises:
            RecordError: the content is damaged.
        """

    def then(self, later: Transform) -> Transform | None:
        """Return one transform that does what this one and a ``later`` one do; None for two."""
        return None


def content_hash(content: Mapping[str, Any]) -> str:
    """Return what tells whether the content of a JSON file was edited or damaged."""
    text = json.dumps(content, sort_keys=True, separators=(',', ':'))
    return hashlib.sha256(text.encode()).hexdigest()


def check_hash(content: Field) -> None:
    """Raise the error of ``content`` unless its ``hash`` is that of its other fields."""
    body = {key: entry.value for key, entry in content.entries() if key != 'hash'}
    if content['hash'].text() != content_hash(body):
        content['hash'].fail('the hash of the content, which was edited or damaged')
