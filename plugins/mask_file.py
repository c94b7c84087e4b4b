"""Mask source: masks from a file, saved by EasyPruner or other code."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from easypruner import Context, Masks, MaskSource, hookimpl
from easypruner.base.checks import check_name, check_path, refuse
from easypruner.checkpoints.rename import Rename, rename_of
from easypruner.errors import ConfigError
from easypruner.graph import ChannelGraph
from easypruner.strategies.sources import layer_masks

_MEANINGS = ('keep', 'remove')

AnyPath = str | os.PathLike[str]


class MaskFile(MaskSource):
    r"""Reads the masks from a file.

    The file is masks.safetensors of another run (group name -> bool tensor), or a dictionary of
    layer name -> bool tensor over the layer's channels, in the format of ``torch.save`` or
    safetensors. The MaskSparsity repository (arXiv 2201.06776) releases its masks in this form,
    by the names of batch norms. A layer without a mask does not affect its group.

    Use when:
        The masks are known: from another run, from a paper's code, or from a tool of your own.

    Fails when:
        The masks are those of a network with other layers or widths; the error names the layer.
        Channels cannot be removed in several cuts, because there are no scores.

    Values:
        ``rename`` for the names of layers in other code, such as
        ``{'module': ''}`` for a network that was saved under ``DataParallel``, or
        ``'pycls->mmpretrain'`` for the released masks of MaskSparsity.

    Args:
        path: the path of the file; or a list of paths. Each further file has the masks of the
            network that the files before it leave, as when a pruned network is pruned again.
        rename: regular expression -> replacement, for the names of layers in other code. Each rule
            replaces whole parts between dots, wherever it matches. The rules are applied one after
            the other, as in ``{'module': '', r's1\.b1': 'layer1.0', 'a_bn': 'bn1'}``. An empty
            replacement removes the parts. Or the name of a map for weights, such as
            ``'pycls->mmpretrain'``, or a rule in another form that ``load_checkpoint`` takes.
        true: what True means in files of layers: ``'keep'``, as in the released ones, or
            ``'remove'``.
        conflict: what happens to units on which coupled layers disagree: ``'error'`` raises an
            error, and ``'keep'`` removes a unit only if all layers with a mask do.
    """

    def __init__(
        self,
        path: AnyPath | Sequence[AnyPath],
        rename: Mapping[str, str] | str | Sequence[Any] | None = None,
        true: str = 'keep',
        conflict: str = 'error',
    ) -> None:
        super().__init__()
        self.paths = _paths(path)
        self.rename = _rules(rename)
        self.true = check_name(true, 'true', 'MaskFile', _MEANINGS)
        self.conflict = check_name(conflict, 'conflict', 'MaskFile', layer_masks.CONFLICTS)

    def check(self) -> None:
        self._loaded()

    def dry_run(self, graph: ChannelGraph, context: Context) -> None:
        self.select(graph, context)

    def select(self, graph: ChannelGraph, context: Context) -> Masks:
        """Return the combined masks of all files.

        Raises:
            MaskError: a file does not exist or is damaged, or its masks do not fit the network.
        """
        masks = Masks()
        for loaded, of_groups in self._loaded():
            if of_groups:
                masks = masks.then(Masks(loaded))
            else:
                found = layer_masks.to_groups(loaded, graph, masks, self.conflict)
                masks = Masks({**masks, **found})
            masks.check(graph)
        return masks

    def _loaded(self) -> list[tuple[layer_masks.LayerMasks, bool]]:
        """Return the masks of each file, True = keep, and whether they are masks of groups."""
        files = [layer_masks.load_masks(path) for path in self.paths]
        if (self.rename or self.true == 'remove') and all(of_groups for _, of_groups in files):
            raise ConfigError(
                "rename= and true='remove' of MaskFile are for masks of layers, but these files "
                'have masks of groups, which EasyPruner wrote; leave the arguments out'
            )
        return [(m if of_groups else self._converted(m), of_groups) for m, of_groups in files]

    def _converted(self, masks: layer_masks.LayerMasks) -> layer_masks.LayerMasks:
        if isinstance(self.rename, Rename):
            found = {new: masks[old] for old, new in self.rename.apply(masks).items()}
        else:
            found = layer_masks.renamed(masks, self.rename)
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


def _rules(rename: Any) -> dict[str, str] | Rename:
    if not rename or isinstance(rename, Mapping):
        return dict(rename or {})
    rule = rename_of(rename, 'MaskFile')
    if rule.structural:
        expected = "rules for names, such as 'pycls->mmpretrain': masks have no structure"
        refuse(rename, 'rename', 'MaskFile', expected)
    return rule


def _paths(path: AnyPath | Sequence[AnyPath]) -> tuple[str, ...]:
    if isinstance(path, str) or not isinstance(path, Sequence):
        return (check_path(path, 'path', 'MaskFile'),)
    if not path:
        refuse(path, 'path', 'MaskFile', 'the path of a file, or several')
    return tuple(check_path(p, f'path[{n}]', 'MaskFile') for n, p in enumerate(path))


easypruner_components = hookimpl(lambda: [MaskFile])
