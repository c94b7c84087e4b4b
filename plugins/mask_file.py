"""Mask source: masks that were saved before."""

from __future__ import annotations

from collections.abc import Iterable

from easypruner import Component, Context, Masks, MaskSource, hookimpl
from easypruner.graph import ChannelGraph


class MaskFile(MaskSource):
    """Takes the masks from a safetensors file, such as masks.safetensors of another run.

    Args:
        path: the file: group name -> bool tensor, True = keep.
    """

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def check(self) -> None:
        Masks.load(self.path)

    def try_on(self, graph: ChannelGraph, context: Context) -> None:
        self.select(graph, context)

    def select(self, graph: ChannelGraph, context: Context) -> Masks:
        masks = Masks.load(self.path)
        masks.check(graph)
        return masks


@hookimpl
def easypruner_components() -> Iterable[type[Component]]:
    return [MaskFile]
