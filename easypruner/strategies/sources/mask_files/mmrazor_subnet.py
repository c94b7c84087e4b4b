"""Sub-networks of mmrazor: how many channels of each of its channel units stay, as JSON or YAML.

mmrazor writes the config of a channel mutator (``fix_subnet.json``), the units of one, or the
choices alone. A unit is named after the first layer that makes its channels, the range of its
channels there, and their number: ``backbone.layer1.0.conv1_(0, 64)_64``. A choice is a number of
channels or a share of them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from easypruner.base.checks import is_number
from easypruner.base.describe import shown
from easypruner.errors import MaskError, nearest
from easypruner.graph import ChannelGraph, Masks
from easypruner.strategies.sources.mask_files.contents import How
from easypruner.strategies.sources.mask_files.units import Places, output_dim, unknown_layer
from easypruner.strategies.sources.mask_files.widths import (
    Width,
    check_frozen,
    choose,
    solve,
    units_left,
)

_UNIT = re.compile(
    r'(?P<layer>[^\s()]{1,500})_\((?P<start>\d{1,9}), (?P<end>\d{1,9})\)_(?P<n>\d{1,9})'
)
_CONFIG, _UNITS = 'channel_unit_cfg', 'units'


@dataclass(frozen=True)
class Choice:
    """How many channels of a unit stay.

    Attributes:
        unit: the name of the unit.
        layer: the first layer that makes its channels.
        start: its first channel there.
        end: the channel after its last there.
        channels: the number of its channels.
        kept: how many of them stay.
    """

    unit: str
    layer: str
    start: int
    end: int
    channels: int
    kept: int


@dataclass(frozen=True)
class MmrazorSubnet:
    """A sub-network of mmrazor.

    Attributes:
        choices: the choices of its units.
    """

    choices: tuple[Choice, ...]
    kind: ClassVar[str] = 'a sub-network of mmrazor'
    only_widths: ClassVar[bool] = True

    @property
    def names(self) -> Collection[str]:
        return list(dict.fromkeys(choice.layer for choice in self.choices))

    def renamed(self, names: Mapping[str, str]) -> MmrazorSubnet:
        return MmrazorSubnet(
            tuple(
                Choice(c.unit, names[c.layer], c.start, c.end, c.channels, c.kept)
                for c in self.choices
            )
        )

    def fit(self, graph: ChannelGraph, earlier: Masks, how: How) -> Masks:
        places = Places(graph, earlier)
        modules = dict(graph.model.named_modules())
        widths = [
            _width(choice, modules, places)
            for choice in self.choices
            # A unit of an input or a pooling has no layer, and stays whole.
            if choice.layer in modules or choice.kept < choice.channels
        ]
        known = [width for width in widths if width is not None and width.per_unit]
        return choose(solve(known, units_left(places)), places, how)


def _width(choice: Choice, modules: Mapping[str, Any], places: Places) -> Width | None:
    """Return the width that a choice gives its layer; None if it gives none."""
    module = modules.get(choice.layer)
    if module is None:
        raise unknown_layer(places.graph, choice.layer)
    param, dim = f'{choice.layer}.weight', output_dim(module)
    if not isinstance(getattr(module, 'weight', None), torch.Tensor):
        if choice.kept < choice.channels:
            raise MaskError(
                f'unit {choice.unit!r} keeps {choice.kept} channels of {choice.layer!r}, a '
                f'{type(module).__name__} without a weight; expected a layer that makes channels'
            )
        return None
    at = places.at(param, dim)
    ratio, more = divmod(choice.end - choice.start, choice.channels)
    if more or choice.end > at.size:
        raise MaskError(
            f'unit {choice.unit!r} is of {choice.channels} channels, {choice.start} to '
            f'{choice.end} of {choice.layer!r}; the layer has {at.size} channels; the file is '
            'that of a network with other widths'
        )
    chosen = torch.zeros(at.size, dtype=torch.bool)
    chosen[choice.start : choice.end] = True
    width = Width.of(f'the choice of unit {choice.unit!r}', choice.kept * ratio, at, chosen)
    if width is None:
        raise MaskError(
            f'the choice of unit {choice.unit!r} does not say how many units stay, because their '
            'sizes there differ'
        )
    check_frozen(places.graph, width, param, dim)
    return width


def parse(content: Mapping[Any, Any], file: str) -> MmrazorSubnet:
    """Read a sub-network.

    Args:
        content: the parsed JSON or YAML.
        file: the name of the file, for messages.

    Raises:
        MaskError: it is not a sub-network; the message names the key.
    """
    config = content.get(_CONFIG)
    units = (
        content if config is None else config.get(_UNITS) if isinstance(config, Mapping) else None
    )
    if not isinstance(units, Mapping):
        raise MaskError(
            f'{_CONFIG} of {file!r} is {shown(config)}; expected a dict with {_UNITS!r}, the name '
            'of each unit -> its choice'
        )
    return MmrazorSubnet(tuple(_choice(name, entry, file) for name, entry in units.items()))


def looks_like(content: Any) -> bool:
    """Tell whether a parsed file has the keys of a sub-network."""
    return isinstance(content, Mapping) and (
        _CONFIG in content or any(isinstance(k, str) and _UNIT.fullmatch(k) for k in content)
    )


def refuse_others(content: Any, file: str) -> None:
    """Raise MaskError for what is nearly a sub-network: a misspelled key, or a search's result."""
    if not isinstance(content, Mapping):
        return
    if any(isinstance(value, Mapping) and 'chosen' in value for value in content.values()):
        raise MaskError(
            f'{file!r} has choices of an architecture search of mmrazor ("chosen"), such as '
            'operations or depths, not channels of layers; expected the config of a channel '
            f'mutator, with {_CONFIG!r}'
        )
    close = nearest(_CONFIG, [key for key in content if isinstance(key, str)])
    if close.startswith('did you mean'):
        raise MaskError(
            f'{file!r} has {close.removeprefix("did you mean ").removesuffix("?")}; expected the '
            f'key {_CONFIG!r} of a sub-network of mmrazor'
        )


def _choice(name: Any, entry: Any, file: str) -> Choice:
    match = _UNIT.fullmatch(name) if isinstance(name, str) else None
    if match is None or not int(match['start']) < int(match['end']) or not int(match['n']):
        raise MaskError(
            f'{file!r} has the unit {shown(name)}; expected the name of a layer, a range and a '
            "number of channels, as in 'backbone.conv1_(0, 64)_64'"
        )
    channels, arguments = int(match['n']), None
    if isinstance(entry, Mapping):
        if 'choice' not in entry:
            raise MaskError(
                f"unit {name!r} of {file!r} has no 'choice', so it does not say what stays; "
                f'{nearest("choice", map(str, entry))}'
            )
        arguments = entry.get('init_args')
        entry = entry['choice']
    kept = _number(entry, channels, arguments)
    if kept is None:
        raise MaskError(
            f'the choice of unit {name!r} in {file!r} is {shown(entry)}; expected a whole number '
            'from 1, or a share above 0 and up to 1.0'
        )
    start, end = int(match['start']), int(match['end'])
    return Choice(name, match['layer'], start, end, channels, kept)


def _number(choice: Any, channels: int, arguments: Any) -> int | None:
    """Return how many channels a choice keeps, as mmrazor computes it; None if it is not one."""
    if not is_number(choice):
        return None
    # The addition undoes the rounding of a share such as 41 / 49.
    number = choice if isinstance(choice, int) else max(1, int(channels * choice + 1e-6))
    if choice <= 0 or (isinstance(choice, float) and choice > 1):
        return None
    # mmrazor keeps all channels if a choice is larger, as in its own DMCP_MBV2_100M.json.
    number = min(number, channels)
    divisor = arguments.get('divisor', 1) if isinstance(arguments, Mapping) else 1
    if type(divisor) is not int or not 1 < divisor <= channels:
        return number
    rounded = max(divisor, int(number + divisor / 2) // divisor * divisor)
    least = arguments.get('min_ratio', 0.9)
    if is_number(least) and rounded < least * number:
        rounded += divisor
    return min(rounded, channels)
