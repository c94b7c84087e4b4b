"""Names that wrappers add: module. of DDP, _orig_mod. of torch.compile, model. of Lightning."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from easypruner.checkpoints.rename import Rename

WRAPPERS = ('module', '_orig_mod', '_fsdp_wrapped_module', '_checkpoint_wrapped_module')
"""The names under which wrappers keep a network."""
_WRAPPER = re.compile(rf'(^|\.)(?:(?:{"|".join(WRAPPERS)})\.)+')
_COUNTERS = ('n_averaged', 'steps')
"""The counters of torch's AveragedModel and of MMEngine's averages."""


@dataclass(frozen=True)
class Attempt:
    """A way to call the weights of a checkpoint.

    Attributes:
        names: name in the checkpoint -> name in the model.
        notes: what was done, for the user.
        rules: the rename rules that were found by structure.
    """

    names: Mapping[str, str]
    notes: tuple[str, ...] = ()
    rules: tuple[tuple[str, str], ...] = ()


def attempts(given: Mapping[str, Any], own: Iterable[str], rename: Rename) -> Iterator[Attempt]:
    """Yield the names of a checkpoint by a rule, and then also without the names of wrappers.

    Args:
        given: the state dict of a checkpoint.
        own: the names of the model.
        rename: the rule of the user.
    """
    yield Attempt(rename.apply(given))
    kept = [name for name in given if not _is_counter(name, given)]
    plain = {name: plain_name(name) for name in kept}
    ours = {plain_name(name): name for name in own}
    if len({*plain.values()}) < len(plain):
        plain = {name: name for name in kept}
    for removed in _common_prefixes(plain.values()):
        stripped = {old: name[len(removed) :] for old, name in plain.items()}
        renamed = rename.apply(stripped.values())
        for added in _common_prefixes(ours):
            names = {
                old: ours.get(added + renamed[name], added + renamed[name])
                for old, name in stripped.items()
            }
            yield Attempt(names, tuple(_notes(names, removed, added, plain, ours)))


def plain_name(name: str) -> str:
    """Return a name without those of wrappers.

    >>> plain_name('module.backbone._orig_mod.conv1.weight')
    'backbone.conv1.weight'
    """
    return _WRAPPER.sub(r'\1', name)


def _is_counter(name: str, given: Mapping[str, Any]) -> bool:
    tensor = given[name]
    return name in _COUNTERS and isinstance(tensor, Tensor) and tensor.numel() == 1


def _common_prefixes(names: Iterable[str]) -> list[str]:
    """Return the prefixes of whole parts that all names have, from the empty one on."""
    parts = [name.split('.')[:-1] for name in names]
    found = ['']
    for column in zip(*parts, strict=False):
        if len({*column}) > 1:
            break
        found.append(f'{found[-1]}{column[0]}.')
    return found


def _notes(
    names: Mapping[str, str],
    removed: str,
    added: str,
    plain: Mapping[str, str],
    ours: Mapping[str, str],
) -> Iterator[str]:
    """Yield what was done to the names of a checkpoint."""
    wrapped = [old for old, name in plain.items() if name != old]
    segments = {part for old in wrapped for part in old.split('.') if part in WRAPPERS}
    without = ' and '.join([*(f'{part}.' for part in sorted(segments)), *filter(None, [removed])])
    if without:
        yield f'without {without} in the names of the checkpoint'
    inserted = {part for new in names.values() for part in new.split('.') if part in WRAPPERS}
    if inserted and any(name != new for name, new in ours.items()):
        yield f'with {" and ".join(f"{part}." for part in sorted(inserted))} of the model'
    if added:
        yield f'with {added} in front of the names of the checkpoint'
