"""Mask source: masks that were saved before, by EasyPruner or other code."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from easypruner import Component, Context, Masks, MaskSource, hookimpl
from easypruner.base.checks import check_name, check_path
from easypruner.errors import ConfigError
from easypruner.graph import ChannelGraph
from easypruner.strategies.sources.layer_masks import (
    CONFLICTS,
    LayerMasks,
    load_masks,
    renamed,
    to_groups,
)

_MEANINGS = ('keep', 'remove')

AnyPath = str | os.PathLike[str]


class MaskFile(MaskSource):
    r"""Takes the masks from a file.

    That is masks.safetensors of another run (group name -> bool tensor), or a dictionary of layer
    name -> bool tensor of its channels, as ``torch.save`` or safetensors writes it. So the
    MaskSparsity repository (arXiv 2201.06776) releases its masks, by the names of batch norms.
    Layers that are not named have no say in their group.

    Args:
        path: of the file; or a list, each found on the network that those before it leave, as when
            a pruned network is pruned again.
        rename: regular expression -> replacement, for the names of layers in other code. Each
            replaces whole parts between dots wherever it fits, one after the other, as in
            ``{'module': '', r's1\.b1': 'layer1.0', 'a_bn': 'bn1'}``; an empty replacement leaves
            the parts out.
        true: what True means in files of layers: ``'keep'``, as in the released ones, or
            ``'remove'``.
        conflict: what becomes of units on which coupled layers disagree: ``'error'``, or
            ``'keep'``, which removes a unit only where all layers that are named do.
    """

    def __init__(
        self,
        path: AnyPath | Sequence[AnyPath],
        rename: Mapping[str, str] | None = None,
        true: str = 'keep',
        conflict: str = 'error',
    ) -> None:
        super().__init__()
        self.paths = _paths(path)
        self.rename = dict(rename or {})
        self.true = check_name(true, 'true', 'MaskFile', _MEANINGS)
        self.conflict = check_name(conflict, 'conflict', 'MaskFile', CONFLICTS)

    def check(self) -> None:
        self._loaded()

    def dry_run(self, graph: ChannelGraph, context: Context) -> None:
        self.select(graph, context)

    def select(self, graph: ChannelGraph, context: Context) -> Masks:
        """Return the masks of all files together.

        Raises:
            MaskError: a file that is not there or damaged, or masks that do not fit the network.
        """
        masks = Masks()
        for loaded, of_groups in self._loaded():
            if of_groups:
                masks = masks.then(Masks(loaded))
            else:
                masks = Masks({**masks, **to_groups(loaded, graph, masks, self.conflict)})
            masks.check(graph)
        return masks

    def _loaded(self) -> list[tuple[LayerMasks, bool]]:
        """Return what each file holds, True = keep, and whether it names groups."""
        files = [load_masks(path) for path in self.paths]
        if (self.rename or self.true == 'remove') and all(of_groups for _, of_groups in files):
            raise ConfigError(
                "rename= and true='remove' of MaskFile are for files of layers, but those it "
                'is given were written by EasyPruner: they name groups, and True keeps'
            )
        return [(m if of_groups else self._understood(m), of_groups) for m, of_groups in files]

    def _understood(self, masks: LayerMasks) -> LayerMasks:
        found = renamed(masks, self.rename)
        return {n: ~m for n, m in found.items()} if self.true == 'remove' else found

    @classmethod
    def example(cls, graph: ChannelGraph, folder: Path) -> Mapping[str, Any]:
        masks = {
            name: torch.arange(group.size) < max(group.size // 2, 1)
            for name, group in graph.groups.items()
        }
        path = folder / 'masks.safetensors'
        Masks(masks).save(path)
        return {'path': str(path)}


def _paths(path: AnyPath | Sequence[AnyPath]) -> tuple[str, ...]:
    if isinstance(path, str) or not isinstance(path, Sequence):
        return (check_path(path, 'path', 'MaskFile'),)
    if not path:
        raise ConfigError('path=[] of MaskFile names no file')
    return tuple(check_path(p, f'path[{n}]', 'MaskFile') for n, p in enumerate(path))


@hookimpl
def easypruner_components() -> Iterable[type[Component]]:
    return [MaskFile]
