"""Mask source: masks from a file, saved by EasyPruner or other code."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from easypruner import Context, Masks, MaskSource, hookimpl
from easypruner.base.checks import check_name, check_path, refuse
from easypruner.base.distributed import is_main
from easypruner.checkpoints.rename import Rename, rename_of
from easypruner.errors import ConfigError
from easypruner.graph import ChannelGraph
from easypruner.strategies.sources.mask_files.contents import (
    CONFLICTS,
    WHICH,
    GroupMasks,
    How,
    MaskContent,
)
from easypruner.strategies.sources.mask_files.layer_masks import LayerMasks
from easypruner.strategies.sources.mask_files.reading import read_masks
from easypruner.strategies.sources.mask_files.renaming import new_names

_MEANINGS = ('keep', 'remove')

AnyPath = str | os.PathLike[str]


class MaskFile(MaskSource):
    r"""Reads the masks from a file.

    The file is masks.safetensors of another run (group name -> bool tensor), or a dictionary of
    layer name -> bool tensor over the layer's channels, in the format of ``torch.save`` or
    safetensors. The MaskSparsity repository (arXiv 2201.06776) releases its masks in this form,
    by the names of batch norms. A layer without a mask does not affect its group.

    The results of other programs are read as they are: structures of timm, sub-networks of
    mmrazor, masks of NNI, and histories of Torch-Pruning. The format is recognized by the content.

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
        which: which channels stay if a file says only how many (timm, mmrazor): ``'l1'``, those
            with the largest L1 norms, or ``'first'``. Without it, ``'l1'`` and a warning.
    """

    def __init__(
        self,
        path: AnyPath | Sequence[AnyPath],
        rename: Mapping[str, str] | str | Sequence[Any] | None = None,
        true: str = 'keep',
        conflict: str = 'error',
        which: str | None = None,
    ) -> None:
        super().__init__()
        self.paths = _paths(path)
        self.rename = _rules(rename)
        self.true = check_name(true, 'true', 'MaskFile', _MEANINGS)
        self.conflict = check_name(conflict, 'conflict', 'MaskFile', CONFLICTS)
        self.which = None if which is None else check_name(which, 'which', 'MaskFile', WHICH)

    def check(self) -> None:
        self._contents()

    def dry_run(self, graph: ChannelGraph, context: Context) -> None:
        self._selected(graph)

    def select(self, graph: ChannelGraph, context: Context) -> Masks:
        """Return the combined masks of all files.

        Raises:
            MaskError: a file does not exist or is damaged, or its masks do not fit the network.
        """
        masks = self._selected(graph)
        if any(content.only_widths for _, content in self._contents()) and is_main():
            self._warn_of_widths(graph, masks)
        return masks

    def _warn_of_widths(self, graph: ChannelGraph, masks: Masks) -> None:
        """Warn of what a file leaves open that says how many channels stay."""
        path = self.paths[0]
        if self.which is None:
            warnings.warn(
                f'MaskFile: {path!r} says how many channels stay, but not which; those with the '
                "largest L1 norms do. which='l1' confirms it, which='first' keeps the first ones",
                stacklevel=4,
            )
        silent = [name for name in graph.groups if name not in masks]
        if silent:
            warnings.warn(
                f'MaskFile: {path!r} says nothing of {len(silent)} of {len(graph.groups)} groups, '
                f'such as {silent[0]!r}, so they stay whole; is it the structure of another '
                'network?',
                stacklevel=4,
            )

    def _selected(self, graph: ChannelGraph) -> Masks:
        masks, how = Masks(), How(self.conflict, self.which or 'l1')
        for _, content in self._contents():
            masks = content.fit(graph, masks, how)
            masks.check(graph)
        return masks

    def _contents(self) -> list[tuple[str, MaskContent]]:
        """Return what each file says, with the network's names, True = keep."""
        contents = [read_masks(path) for path in self.paths]
        of_groups = [content for content in contents if isinstance(content, GroupMasks)]
        if (self.rename or self.true == 'remove') and len(of_groups) == len(contents):
            raise ConfigError(
                "rename= and true='remove' of MaskFile are for masks of layers, but these files "
                f'have {GroupMasks.kind}; leave the arguments out'
            )
        if self.true == 'remove' and not any(isinstance(c, LayerMasks) for c in contents):
            raise ConfigError(
                f"true='remove' of MaskFile is for masks of layers, but {self.paths[0]!r} is "
                f'{contents[0].kind}; leave it out'
            )
        if self.which is not None and not any(content.only_widths for content in contents):
            raise ConfigError(
                f'which={self.which!r} of MaskFile is for files that only say how many channels '
                f'stay, but {self.paths[0]!r} has {contents[0].kind}; leave it out'
            )
        return list(zip(self.paths, map(self._converted, contents), strict=True))

    def _converted(self, content: MaskContent) -> MaskContent:
        names = content.names
        if isinstance(self.rename, Rename):
            content = content.renamed(self.rename.apply(names))
        elif self.rename:
            content = content.renamed(new_names(names, self.rename))
        if self.true == 'remove' and isinstance(content, LayerMasks):
            return content.inverted()
        return content

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
