"""Layer masks: files with a mask for each layer, and their conversion to masks of groups."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from easypruner.base.describe import describe
from easypruner.base.files import zip_damage
from easypruner.errors import ConfigError, MaskError, nearest
from easypruner.graph import ChannelGraph, Masks, Member
from easypruner.strategies.measures.activations import makes_output, output_channels

LayerMasks = Mapping[str, Tensor]
"""Dotted name of a layer -> bool tensor of its output channels, True = keep."""

CONFLICTS = ('error', 'keep')
"""If coupled layers disagree on a unit: raise an error, or keep the unit."""

# A file of torch.save starts as a zip archive; one of an old torch with a pickled magic number.
_ZIP = b'PK\x03\x04'
_PICKLED_NUMBER = b'l\xfc\x9cF\xf9 j\xa8P\x19'
# safetensors refuses a longer header, so a longer one means another format.
_LONGEST_HEADER = 100_000_000


def load_masks(path: str | os.PathLike[str]) -> tuple[LayerMasks, bool]:
    """Read a file of masks: safetensors, or a dictionary of tensors that ``torch.save`` wrote.

    Only tensors are unpickled.

    Returns:
        name -> bool tensor, and whether the names are those of groups, as in a file that
        :meth:`Masks.save` wrote.

    Raises:
        MaskError: the file does not exist, holds no masks, or holds anything else than
            one-dimensional bool tensors by name.
    """
    file = Path(path)
    if not file.is_file():
        raise MaskError(f'there is no mask file {str(file)!r}; check the path')
    with file.open('rb') as opened:
        start = opened.read(32)
    masks: LayerMasks
    if _is_safetensors(start):
        masks, of_groups = Masks.load(file), _is_of_groups(file)
    elif start.startswith(_ZIP) or (start.startswith(b'\x80') and _PICKLED_NUMBER in start):
        masks, of_groups = _checked(_unpickled(file), file), False
    else:
        raise _unreadable(file, 'it is neither a safetensors file nor one that torch.save wrote')
    if not masks:
        raise MaskError(f'{str(file)!r} holds no masks; expected one for each layer or group')
    return masks, of_groups


def _is_safetensors(start: bytes) -> bool:
    """Tell whether a file starts with the length of a header, then with its opening brace."""
    return start[8:9] == b'{' and int.from_bytes(start[:8], 'little') <= _LONGEST_HEADER


def _is_of_groups(file: Path) -> bool:
    """Tell whether EasyPruner wrote the file."""
    from safetensors import safe_open

    with safe_open(file, 'pt') as opened:
        return (opened.metadata() or {}).get('easypruner') == 'masks'


def _unpickled(file: Path) -> Any:
    if damage := zip_damage(file):
        raise _unreadable(file, damage)
    try:
        return torch.load(file, map_location='cpu', weights_only=True)
    # torch does not document which errors a damaged file raises. Their text is left out, because
    # it advises the user to let the file run code.
    except Exception as error:
        raise _unreadable(file, _reason(error)) from None


def _reason(error: Exception) -> str:
    """Return why torch cannot read a file."""
    called = re.search(r'GLOBAL ([\w.]{1,99})', str(error))
    if called is None:
        return 'it is damaged, or in a format that torch cannot read safely'
    name = called[1]
    if name.startswith('numpy'):
        return 'it holds NumPy arrays; save torch.from_numpy(mask) instead of each array'
    return f'loading it would call {name!r}, and EasyPruner never runs code from a file'


def _unreadable(file: Path, reason: str) -> MaskError:
    return MaskError(
        f'{str(file)!r} cannot be read as masks: {reason}; expected a dictionary of layer name to '
        'bool tensor, or masks.safetensors of a run'
    )


def _checked(content: Any, file: Path) -> dict[str, Tensor]:
    if not isinstance(content, Mapping):
        raise MaskError(
            f'{str(file)!r} holds {describe(content)}; expected a dictionary of layer name '
            'to bool tensor'
        )
    for name, mask in content.items():
        if not isinstance(name, str):
            raise MaskError(f'{str(file)!r} has the layer name {name!r}; expected a text')
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.dim() != 1:
            raise MaskError(
                f'the mask of layer {name!r} in {str(file)!r} is {describe(mask)}; expected a '
                'one-dimensional bool tensor, not an array or a list'
            )
    return dict(content)


def renamed(masks: LayerMasks, rules: Mapping[str, str]) -> dict[str, Tensor]:
    r"""Return masks with new names.

    Args:
        masks: the masks of layers.
        rules: regular expression -> replacement, which may refer to its groups. Each rule replaces
            whole parts of a name between dots, wherever it matches. The rules are applied one
            after the other. An empty replacement removes the parts.

    Raises:
        ConfigError: a rule is not a regular expression.
        MaskError: two layers get the same name.

    >>> mask = torch.tensor([True])
    >>> list(renamed({'module.s1.a_bn': mask}, {'module': '', r's(\d)': r'layer\1'}))
    ['layer1.a_bn']
    """
    names = {name: name for name in masks}
    for pattern, replacement in rules.items():
        try:
            rule = re.compile(rf'(?<![^.])(?:{pattern})(?![^.])')
            after = {old: _tidy(rule.sub(replacement, name)) for old, name in names.items()}
        except (re.error, IndexError) as error:
            raise ConfigError(
                f'rename[{pattern!r}] is not a regular expression: {error}'
            ) from error
        names = after
    result: dict[str, Tensor] = {}
    for old, new in names.items():
        if new in result:
            other = next(name for name in names if names[name] == new)
            raise MaskError(f'rename turns both {other!r} and {old!r} into {new!r}')
        result[new] = masks[old]
    return result


def _tidy(name: str) -> str:
    return '.'.join(part for part in name.split('.') if part)


@dataclass(frozen=True)
class _OutputChannels:
    """The channels of a group that a layer produces.

    Attributes:
        group: the name of the group.
        index: ``(units, k)``: the channels of each unit in the output of the layer.
        left: ``(channels,)``: whether the earlier masks have left each channel of the output.
    """

    group: str
    index: Tensor
    left: Tensor


def to_groups(masks: LayerMasks, graph: ChannelGraph, earlier: Masks, conflict: str) -> Masks:
    """Convert masks of layers to masks of groups, over the units of ``graph``.

    A layer without a mask does not affect its group. A group without any masked layer is left out.

    Args:
        masks: the masks of layers of the network that remains after ``earlier``.
        graph: the channel graph of the network before ``earlier``.
        earlier: the masks of groups that were applied before.
        conflict: a name of :data:`CONFLICTS`.

    Raises:
        MaskError: the network does not have a layer, a layer has another number of channels or
            loses channels that cannot be removed, or coupled layers disagree while ``conflict``
            is ``'error'``.
    """
    before = graph.keep(earlier)
    of_groups: dict[str, dict[str, Tensor]] = {}
    for layer, mask in masks.items():
        outputs = _outputs(graph, layer, before)
        full = _over_all_channels(layer, mask, graph, outputs)
        frozen = ~full
        for output in outputs:
            frozen[output.index.flatten()] = False
            keep = _over_units(layer, full[output.index], output.group, conflict)
            of_groups.setdefault(output.group, {})[layer] = keep
        if bool(frozen.any()):
            raise MaskError(_frozen_message(graph, layer, int(frozen.sum())))
    return Masks({name: _combined(name, found, conflict) for name, found in of_groups.items()})


def _outputs(
    graph: ChannelGraph, layer: str, before: Mapping[tuple[str, int], Tensor]
) -> list[_OutputChannels]:
    found = []
    for name, group in graph.groups.items():
        members = [m for m in group.members if m.module == layer and _is_output(graph, m)]
        if members:
            member = max(members, key=lambda m: graph.parameter(m.param).dim())
            index = output_channels(graph, member, graph.model.get_submodule(layer))
            size = graph.parameter(member.param).shape[member.dim]
            left = before.get((member.param, member.dim), torch.ones(size) > 0)
            # The weight of a grouped transposed convolution has the channels of one group only.
            repeats = index.shape[1] // member.index.shape[1]
            found.append(_OutputChannels(name, index, left.repeat(repeats)))
    return found


def _is_output(graph: ChannelGraph, member: Member) -> bool:
    """Tell whether a member holds channels of its layer's output."""
    weight = graph.parameter(member.param).dim() > 1
    module = graph.model.get_submodule(member.module)
    return member.role == 'out' and (not weight or makes_output(module, member))


def _over_all_channels(
    layer: str, mask: Tensor, graph: ChannelGraph, outputs: list[_OutputChannels]
) -> Tensor:
    """Return the mask of a layer, over the channels that it had before the earlier masks."""
    if not outputs:
        known = [path for path, module in graph.model.named_modules() if path]
        if layer not in known:
            raise MaskError(
                f'the masks name layer {layer!r}, which this {type(graph.model).__name__} does not '
                f'have; {_hint(layer, known)}'
            )
        return mask
    full = outputs[0].left.clone()
    left = int(full.sum())
    if mask.numel() != left:
        raise MaskError(_widths_message(layer, mask.numel(), left, full.numel()))
    return full.masked_scatter(full, mask)


def _widths_message(layer: str, entries: int, left: int, channels: int) -> str:
    earlier = f' left of {channels}' if left < channels else ''
    return (
        f'the mask of layer {layer!r} has {entries} entries; the layer has {left} channels'
        f'{earlier}; the masks are those of a network with other widths; if it was pruned from '
        'this one, give the masks of its cuts first: path=[EARLIER, THESE]'
    )


def _hint(layer: str, known: list[str]) -> str:
    """Return advice on a layer that the network does not have."""
    first, _, rest = layer.partition('.')
    if rest not in known:
        return f'{nearest(layer, known)}; rename= maps names from other code'
    # Without the anchor a rule matches every part of a name.
    pattern = f'^{first}' if first in rest.split('.') else first
    return f"rename={{{pattern!r}: ''}} removes the {first!r} before {rest!r}"


def _over_units(layer: str, channels: Tensor, group: str, conflict: str) -> Tensor:
    """Return the mask of a layer over units, from the mask of their channels ``(units, k)``."""
    keep = channels.any(dim=1)
    split = keep & ~channels.all(dim=1)
    if conflict == 'error' and bool(split.any()):
        raise MaskError(
            f'layer {layer!r} removes some channels of {int(split.sum())} units of group {group!r} '
            "and keeps others, but they can only be removed together; conflict='keep' keeps such "
            'units'
        )
    return keep


def _combined(group: str, masks: Mapping[str, Tensor], conflict: str) -> Tensor:
    """Return the mask of a group, which keeps a unit that any layer keeps.

    Args:
        group: the name of the group.
        masks: layer -> ``(units,)``, True = keep.
        conflict: a name of :data:`CONFLICTS`.
    """
    (first, keep), *others = masks.items()
    for other, mask in others:
        different = int((keep != mask).sum())
        if conflict == 'error' and different:
            raise MaskError(
                f'layers {first!r} and {other!r} of group {group!r} are coupled, but their masks '
                f"differ in {different} of {keep.numel()} units; conflict='keep' removes a unit "
                'only if all of them do'
            )
    return torch.stack([*masks.values()]).any(dim=0)


def _frozen_message(graph: ChannelGraph, layer: str, count: int) -> str:
    reasons = (f.reason for f in graph.frozen if f.param.rpartition('.')[0] == layer)
    return (
        f'the mask of layer {layer!r} removes {count} channels that cannot be removed here: '
        + next(reasons, 'no channel of this layer can be cut')
    )
