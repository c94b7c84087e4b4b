"""Layer masks: files with a mask for each layer, and what they mean for the groups of a graph."""

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
from easypruner.errors import ConfigError, MaskError, nearest
from easypruner.graph import ChannelGraph, Member
from easypruner.graph.masks import Masks
from easypruner.strategies.measures.activations import makes, output_channels

LayerMasks = Mapping[str, Tensor]
"""Dotted name of a layer -> bool tensor of its output channels, True = keep."""

CONFLICTS = ('error', 'keep')
"""What coupled layers that disagree on a unit are: an error, or a unit that stays."""

# How torch.save begins a file: as a zip archive, or before that with a number, pickled.
_ZIP = b'PK\x03\x04'
_PICKLED_NUMBER = b'l\xfc\x9cF\xf9 j\xa8P\x19'
# Beyond it safetensors takes no header, which keeps other files apart.
_LONGEST_HEADER = 100_000_000


def load_masks(path: str | os.PathLike[str]) -> tuple[LayerMasks, bool]:
    """Read a file of masks: safetensors, or a dictionary of tensors as ``torch.save`` writes it.

    Nothing but tensors is unpickled.

    Returns:
        name -> bool tensor, and whether the names are those of groups, as in files that
        :meth:`Masks.save` wrote.

    Raises:
        MaskError: no such file, or it holds anything but one-dimensional bool tensors by name, one
            at the least.
    """
    file = Path(path)
    if not file.is_file():
        raise MaskError(f'there is no mask file {str(file)!r}')
    with file.open('rb') as opened:
        start = opened.read(32)
    masks: LayerMasks
    if _is_safetensors(start):
        masks, of_groups = Masks.load(file), _ours(file)
    elif start.startswith(_ZIP) or (start.startswith(b'\x80') and _PICKLED_NUMBER in start):
        masks, of_groups = _checked(_unpickled(file), file), False
    else:
        raise _unreadable(file, 'it is neither a safetensors file nor one that torch.save wrote')
    if not masks:
        raise MaskError(f'{str(file)!r} holds no masks; expected one for each layer or group')
    return masks, of_groups


def _is_safetensors(start: bytes) -> bool:
    """Tell it by the length of the header, which may begin with any byte, and the brace behind."""
    return start[8:9] == b'{' and int.from_bytes(start[:8], 'little') <= _LONGEST_HEADER


def _ours(file: Path) -> bool:
    from safetensors import safe_open

    with safe_open(file, 'pt') as opened:
        return (opened.metadata() or {}).get('easypruner') == 'masks'


def _unpickled(file: Path) -> Any:
    try:
        return torch.load(file, map_location='cpu', weights_only=True)
    # torch does not tell what it raises on a damaged file. What it says is left out: that the file
    # could be read if its code were allowed to run.
    except Exception as error:
        raise _unreadable(file, _reason(error)) from None


def _reason(error: Exception) -> str:
    """Return why torch does not read a file."""
    strange = re.search(r'GLOBAL ([\w.]{1,99})', str(error))
    if strange is None:
        return 'it is damaged, or written in a way that torch does not read safely'
    name = strange[1]
    if name.startswith('numpy'):
        return 'it holds NumPy arrays; save torch.from_numpy(mask) in place of each'
    return f'it asks for {name!r} to be called, and nothing that a file asks for is'


def _unreadable(file: Path, reason: str) -> MaskError:
    return MaskError(
        f'{str(file)!r} cannot be read as masks: {reason}; expected a dictionary of bool tensors '
        'by the names of layers, and nothing but that, or masks.safetensors of a run'
    )


def _checked(content: Any, file: Path) -> dict[str, Tensor]:
    if not isinstance(content, Mapping):
        raise MaskError(
            f'{str(file)!r} holds {describe(content)}; expected a dictionary of layer name '
            'to bool tensor'
        )
    for name, mask in content.items():
        if not isinstance(name, str):
            raise MaskError(f'{str(file)!r} names a layer {name!r}; expected a text')
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.dim() != 1:
            raise MaskError(
                f'the mask of layer {name!r} in {str(file)!r} is {describe(mask)}; expected a '
                'one-dimensional bool tensor, not an array or a list'
            )
    return dict(content)


def renamed(masks: LayerMasks, rules: Mapping[str, str]) -> dict[str, Tensor]:
    r"""Return masks under the names that rules turn theirs into.

    Args:
        masks: of layers.
        rules: regular expression -> replacement, which may refer to its groups. Each replaces
            whole parts of a name between dots, wherever it fits, one rule after the other; an
            empty replacement leaves the parts out.

    Raises:
        ConfigError: a rule that is no regular expression.
        MaskError: two layers of one name.

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
            raise ConfigError(f'rename[{pattern!r}] is no regular expression: {error}') from error
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
class _Place:
    """Where a layer makes channels of a group.

    Attributes:
        group: its name.
        keys: parameter and dimension that hold them.
        index: ``(units, k)``: the channels of each unit in what the layer puts out.
        repeats: how many times over the dimension counts: the weight of a grouped transposed
            convolution has the channels of but one of its groups.
    """

    group: str
    keys: tuple[str, int]
    index: Tensor
    repeats: int


@dataclass(frozen=True)
class _Voice:
    """What a layer says about the units of a group."""

    layer: str
    keep: Tensor


def to_groups(masks: LayerMasks, graph: ChannelGraph, earlier: Masks, conflict: str) -> Masks:
    """Return what the masks of layers amount to for groups, over the units of ``graph``.

    Layers that are not named have no say; groups of which no layer is named are left out.

    Args:
        masks: of layers of the network that ``earlier`` masks leave.
        graph: of the network before these.
        earlier: masks of groups that were applied before.
        conflict: a name of :data:`CONFLICTS`.

    Raises:
        MaskError: a layer that is not there, has another number of channels, or loses some that
            cannot be removed; or, unless told otherwise, coupled layers that disagree.
    """
    before = graph.keep(earlier)
    voices: dict[str, list[_Voice]] = {}
    for layer, mask in masks.items():
        places = _places(graph, layer)
        full = _over_all(layer, mask, graph, places, before)
        held = ~full
        for place in places:
            held[place.index.flatten()] = False
            keep = _of_units(layer, full[place.index], place.group, conflict)
            voices.setdefault(place.group, []).append(_Voice(layer, keep))
        if bool(held.any()):
            raise MaskError(_why_held(graph, layer, int(held.sum())))
    return Masks({name: _agreed(name, said, conflict) for name, said in voices.items()})


def _places(graph: ChannelGraph, layer: str) -> list[_Place]:
    found = []
    for name, group in graph.groups.items():
        members = [m for m in group.members if m.module == layer and _speaks(graph, m)]
        if members:
            member = max(members, key=lambda m: graph.parameter(m.param).dim())
            index = output_channels(graph, member, graph.model.get_submodule(layer))
            repeats = index.shape[1] // member.index.shape[1]
            found.append(_Place(name, (member.param, member.dim), index, repeats))
    return found


def _speaks(graph: ChannelGraph, member: Member) -> bool:
    """Tell whether a member holds channels of its layer's output."""
    weight = graph.parameter(member.param).dim() > 1
    module = graph.model.get_submodule(member.module)
    return member.role == 'out' and (not weight or makes(module, member))


def _over_all(
    layer: str,
    mask: Tensor,
    graph: ChannelGraph,
    places: list[_Place],
    before: Mapping[tuple[str, int], Tensor],
) -> Tensor:
    """Return a layer's mask over the channels it had before any masks."""
    if not places:
        known = [path for path, module in graph.model.named_modules() if path]
        if layer not in known:
            raise MaskError(
                f'the masks name layer {layer!r}, which this {type(graph.model).__name__} does not '
                f'have; {_hint(layer, known)}'
            )
        return mask
    param, dim = places[0].keys
    start = before.get((param, dim), torch.ones(graph.parameter(param).shape[dim]) > 0)
    start = start.repeat(places[0].repeats)
    left = int(start.sum())
    if mask.numel() != left:
        earlier = f' left of {start.numel()}' if left < start.numel() else ''
        raise MaskError(
            f'the mask of layer {layer!r} has {mask.numel()} entries; '
            f'the layer has {left} channels{earlier}'
        )
    full = start.clone()
    full[start] = mask
    return full


def _hint(layer: str, known: list[str]) -> str:
    """Return what may be done about a layer that there is not."""
    first, _, rest = layer.partition('.')
    if rest not in known:
        return f'{nearest(layer, known)}; rename= maps names of other code'
    # A rule fits all parts of a name unless it is told where.
    pattern = f'^{first}' if first in rest.split('.') else first
    return f"rename={{{pattern!r}: ''}} leaves out the {first!r} before {rest!r}"


def _of_units(layer: str, channels: Tensor, group: str, conflict: str) -> Tensor:
    """Return what a layer says of each unit, by its channels ``(units, k)``."""
    keep = channels.any(dim=1)
    split = keep & ~channels.all(dim=1)
    if conflict == 'error' and bool(split.any()):
        raise MaskError(
            f'layer {layer!r} removes some channels of {int(split.sum())} units of group {group!r} '
            "and keeps others, but these live or die together; conflict='keep' keeps such units"
        )
    return keep


def _agreed(group: str, voices: list[_Voice], conflict: str) -> Tensor:
    first = voices[0]
    for other in voices[1:]:
        apart = int((first.keep != other.keep).sum())
        if conflict == 'error' and apart:
            raise MaskError(
                f'layers {first.layer!r} and {other.layer!r} of group {group!r} are coupled, but '
                f'their masks differ in {apart} of {first.keep.numel()} units; '
                "conflict='keep' removes a unit only where all of them do"
            )
    return torch.stack([voice.keep for voice in voices]).any(dim=0)


def _why_held(graph: ChannelGraph, layer: str, count: int) -> str:
    reasons = (f.reason for f in graph.frozen if f.param.rpartition('.')[0] == layer)
    return (
        f'the mask of layer {layer!r} removes {count} channels that cannot be removed here: '
        + next(reasons, 'nothing of this layer can be cut')
    )
