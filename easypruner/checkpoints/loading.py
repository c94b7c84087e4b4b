"""Loads a checkpoint of any origin into a model, if everything fits or was skipped by the user."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from easypruner.checkpoints.advice import mismatch
from easypruner.checkpoints.comparing import (
    Comparison,
    compare,
    complete,
    converted,
    own_weights,
)
from easypruner.checkpoints.reading import Weights
from easypruner.checkpoints.rename import NO_RENAME, Rename
from easypruner.checkpoints.source import source_of
from easypruner.checkpoints.structure import as_rename, structural_map
from easypruner.checkpoints.wrappers import Attempt, attempts
from easypruner.errors import ConfigError, EasyPrunerError, nearest

_TRIED = 3
_SHOWN = 4


@dataclass(frozen=True)
class Loading:
    """Weights that fit a model.

    Attributes:
        source: the path of the checkpoint.
        weights: the state dict for the model.
        loaded: the names of the model's weights that the checkpoint has.
        kept: the names of those that keep their initial values.
        unused: the names of the checkpoint's weights that are not used.
        notes: what was done to the names.
        rules: the rename rules, also those that were found by structure. Write them as JSON for a
            file that ``rename`` takes.
    """

    source: str
    weights: Mapping[str, Any]
    loaded: tuple[str, ...]
    kept: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    rules: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        parts = [f'{len(self.loaded)} weights from {self.source!r}', *self.notes]
        if self.kept:
            parts.append(f'initial values stay in {_listed(self.kept)}')
        unused = [name for name in self.unused if name not in self.kept]
        if unused:
            parts.append(f'not used: {_listed(unused)}')
        return '; '.join(parts)


def load_checkpoint(
    model: nn.Module,
    checkpoint: str | os.PathLike[str],
    rename: Any = None,
    skip: str | Sequence[str] = (),
    key: str | None = None,
    prefix: str | None = None,
) -> Loading:
    r"""Load a checkpoint of any origin into a model. Nothing is unpickled.

    Everything has to fit: a weight that is missing, unexpected or of another shape is an error,
    which says what to try. The model is unchanged then. Names that wrappers add, such as
    ``module.``, are removed if everything fits without them.

    Args:
        model: the model to change.
        checkpoint: a file that ``torch.save`` or safetensors wrote, a folder of Hugging Face, or a
            URL.
        rename: what turns the names of the checkpoint into those of the model: a shipped map, such
            as ``'torchvision->mmpretrain'``; pairs of a regular expression and a replacement; a
            JSON file of these; or ``'by_structure'``, if the order and shapes of the weights leave
            only one map.
        skip: regular expressions of the weights that keep their values, such as ``'head\.fc\..*'``.
        key: the entry of the file that has the weights, such as ``'state_dict_ema'``; None for the
            usual one.
        prefix: take only the weights whose names start with this, and remove it.

    Returns:
        What was loaded; ``print`` shows it in one line.

    Raises:
        EasyPrunerError: the file cannot be read, or does not fit the model.
    """
    given = {'checkpoint': checkpoint, 'rename': rename, 'skip': skip, 'key': key, 'prefix': prefix}
    source = source_of(given, 'load_checkpoint')
    found = fit(model, source.read(), source.rename, source.skip)
    load(model, found)
    return found


def load(model: nn.Module, found: Loading) -> None:
    """Copy weights that fit into a model.

    Raises:
        EasyPrunerError: the model refuses them all the same.
    """
    try:
        model.load_state_dict(found.weights, strict=True)
    except RuntimeError as error:
        raise EasyPrunerError(
            f'the checkpoint {found.source!r} does not fit this {type(model).__name__}: {error}'
        ) from error


def fit(
    model: nn.Module,
    weights: Weights,
    rename: Rename = NO_RENAME,
    skip: Sequence[str] = (),
    is_part: bool = False,
) -> Loading:
    """Return the weights of a checkpoint as the model calls them.

    Args:
        model: the model; it is not changed.
        weights: the weights of a checkpoint.
        rename: the rule of the user.
        skip: regular expressions of weights to leave out.
        is_part: whether the model is a part of the network in the checkpoint, so that weights of
            other parts are unexpected, but not wrong.

    Raises:
        EasyPrunerError: they do not fit; the message says what does not, and what to try.
    """
    own = own_weights(model)
    ways = list(_ways(own, weights, rename, skip))
    choices = [_Choice.of(own, weights, way, skip, is_part) for way in ways]
    chosen = next((choice for choice in choices if choice.comparison.exact), None)
    if chosen is None:
        able = (choice for choice in choices[:_TRIED] if not choice.wrong_kinds(own))
        chosen = next((choice for choice in able if converted(model, choice.filled(own))), None)
        if chosen is None:
            first, best = choices[0], max(choices, key=lambda choice: choice.comparison.fitting)
            # Names that a wrapper has added are only taken off if that is the way to go.
            shown = best if best.comparison.fitting > len(own) / 2 else first
            raise mismatch(model, own, weights, shown.comparison, shown.given, rename)
        way = replace(chosen.way, notes=(*chosen.way.notes, _conversion(chosen)))
        chosen = replace(chosen, way=way)
    _check_skip(skip, chosen)
    renamed = (f'renamed by {rename.label}',) if rename.label else ()
    return Loading(
        weights.source,
        chosen.filled(own),
        tuple(chosen.given),
        chosen.kept,
        chosen.unused,
        (*weights.notes, *renamed, *chosen.way.notes),
        rename.rules or chosen.way.rules,
    )


@dataclass(frozen=True)
class _Choice:
    """The weights of a checkpoint as one attempt calls them.

    Attributes:
        way: the attempt.
        given: name in the model -> weight, without those that are left out.
        kept: names of the model that keep their values.
        unused: names that are left out of the checkpoint.
        comparison: what fits.
    """

    way: Attempt
    given: Mapping[str, Any]
    kept: tuple[str, ...]
    unused: tuple[str, ...]
    comparison: Comparison

    @classmethod
    def of(
        cls,
        own: Mapping[str, Any],
        weights: Weights,
        way: Attempt,
        skip: Sequence[str],
        is_part: bool,
    ) -> _Choice:
        """Compare the weights under these names with the model's."""
        named = {new: weights.tensors[old] for old, new in way.names.items()}
        tops = {name.partition('.')[0] for name in own}
        out = {
            name
            for name in named
            if _matches(name, skip) or (is_part and name.partition('.')[0] not in tops)
        }
        kept = tuple(name for name in own if _matches(name, skip))
        given = {name: tensor for name, tensor in named.items() if name not in out}
        wanted = {name: tensor for name, tensor in own.items() if name not in kept}
        return cls(way, given, kept, tuple(n for n in named if n in out), compare(wanted, given))

    def wrong_kinds(self, own: Mapping[str, Any]) -> bool:
        """Return whether torch would turn whole numbers into others without saying so."""
        return any(self.given[n].shape == own[n].shape for n in self.comparison.other)

    def filled(self, own: Mapping[str, Any]) -> dict[str, Any]:
        """Return a whole state dict, with the model's own values of skipped weights."""
        skipped = {name: getattr(own[name], 'detach', lambda: None)() for name in self.kept}
        return {**skipped, **complete(own, self.given)}


def _ways(
    own: Mapping[str, Any], weights: Weights, rename: Rename, skip: Sequence[str]
) -> Iterator[Attempt]:
    """Yield the names of the checkpoint by the user's rule, or by structure if the user asks."""
    if not rename.structural:
        yield from attempts(weights.tensors, own, rename)
        return
    where = f'the checkpoint {weights.source!r}'
    if not weights.ordered:
        raise EasyPrunerError(
            f'{where} is a file of safetensors, which does not keep the order of the weights, so '
            'that no names can be found by structure; use rename=[(REGEX, REPLACEMENT), ...]'
        )
    wanted = {name: tensor for name, tensor in own.items() if not _matches(name, skip)}
    given = {name: tensor for name, tensor in weights.tensors.items() if not _matches(name, skip)}
    found = structural_map(given, wanted)
    if found is None:
        raise EasyPrunerError(
            f'{where} and the model differ in the order, shapes or kinds of their weights, or '
            'there are several maps between them, so that no names can be found by structure; use '
            'rename=[(REGEX, REPLACEMENT), ...]'
        )
    rule = as_rename(found, list(weights.tensors))
    yield Attempt(rule.apply(weights.tensors), rules=rule.rules)


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(re.fullmatch(pattern, name) for pattern in patterns)


def _check_skip(skip: Sequence[str], chosen: _Choice) -> None:
    """Raise ConfigError for a pattern without effect, which is a typing error."""
    names = (*chosen.kept, *chosen.unused)
    for pattern in skip:
        if not any(re.fullmatch(pattern, name) for name in names):
            modules = {name.rpartition('.')[0] for name in chosen.given}
            raise ConfigError(
                f'skip={pattern!r} is not the whole name of any weight; '
                f'{nearest(pattern.rstrip(".*"), modules)} (skip=[NAME + ".*"] leaves out a module)'
            )


def _conversion(chosen: _Choice) -> str:
    return f'the model itself converts {_listed(chosen.comparison.wrong)}'


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN
    return ', '.join(names[:_SHOWN]) + (f' and {more} more' if more > 0 else '')
