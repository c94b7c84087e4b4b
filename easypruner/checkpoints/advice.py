"""The message about a checkpoint that does not fit: what fits, what does not, what to try."""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Any

from torch import nn

from easypruner.checkpoints.comparing import Comparison, compare
from easypruner.checkpoints.maps import MAPS
from easypruner.checkpoints.reading import Weights
from easypruner.checkpoints.rename import BY_STRUCTURE, Rename, rename_of
from easypruner.checkpoints.structure import as_rename, structural_map
from easypruner.checkpoints.wrappers import attempts
from easypruner.errors import EasyPrunerError

_LISTED = 5
_RULES = 6
_SKIPPED = 3
_ENOUGH = 0.5
_LONG = 120


@dataclass(frozen=True)
class Idea:
    """Settings that make more weights fit.

    Attributes:
        settings: the settings as text, such as ``rename='torchvision->mmpretrain'``.
        given: name in the model -> weight.
        comparison: what fits with them.
    """

    settings: str
    given: Mapping[str, Any]
    comparison: Comparison


def mismatch(
    model: nn.Module,
    own: Mapping[str, Any],
    weights: Weights,
    comparison: Comparison,
    given: Mapping[str, Any],
    rename: Rename,
) -> EasyPrunerError:
    """Return the error for a checkpoint that does not fit.

    Args:
        model: the model.
        own: the weights of the model.
        weights: the weights of the checkpoint, under their own names.
        comparison: what fits.
        given: the weights of the checkpoint, under the names for the model.
        rename: the rule of the user.
    """
    c = comparison
    title = (
        f'the checkpoint {weights.source!r} does not fit this {type(model).__name__}: '
        f"{c.fitting} of the model's {len(own)} weights fit ({len(c.missing)} missing, "
        f'{len(c.unexpected)} unexpected, {len(c.other)} of another shape)'
    )
    lines = [title]
    wrong = list(_wrong(own, given, c))
    lines += [f'  {line}' for line in wrong[:_LISTED]]
    if len(wrong) > _LISTED:
        lines.append(f'  and {len(wrong) - _LISTED} more')
    idle = [] if rename.structural else rename.idle(weights.tensors)
    if idle and len(idle) == len(rename.rules):
        lines.append(f'rename={rename.label} changes none of the names')
    now = Idea('', given, comparison)
    best = _best(own, weights, now)
    ideas = [*([] if best is now else [best]), *_for_the_rest(own, weights, best)]
    return EasyPrunerError('\n'.join([*lines, *_what_to_try(own, weights, best, ideas)]))


def _wrong(
    own: Mapping[str, Any], given: Mapping[str, Any], comparison: Comparison
) -> Iterator[str]:
    """Yield a line for each weight that does not fit, of each kind in turn."""
    other = (
        f'other shape  {name}: {_shape(given[name])} in the checkpoint, {_shape(own[name])} in the '
        'model'
        for name in comparison.other
    )
    missing = (f'missing      {name} {_shape(own[name])}' for name in comparison.missing)
    unexpected = (f'unexpected   {name} {_shape(given[name])}' for name in comparison.unexpected)
    for line in chain.from_iterable(zip_longest(other, missing, unexpected)):
        if line is not None:
            yield line


def _shape(tensor: Any) -> str:
    kind = str(getattr(tensor, 'dtype', type(tensor).__name__)).removeprefix('torch.')
    shape = str(tuple(getattr(tensor, 'shape', ())))
    return shape if kind.startswith(('float', 'bfloat')) else f'{shape} of {kind}'


def _best(own: Mapping[str, Any], weights: Weights, now: Idea) -> Idea:
    """Return the rule with which most weights fit, or what there is now."""
    tried = [now, *_tried(own, weights.tensors)]
    best = max(tried, key=lambda idea: (idea.comparison.fitting, -len(idea.comparison.wrong)))
    return best if best.comparison.fitting > now.comparison.fitting else now


def _for_the_rest(own: Mapping[str, Any], weights: Weights, best: Idea) -> Iterator[Idea]:
    """Yield settings that make everything fit where a rule alone does not."""
    if not best.comparison.exact:
        skip = _skip_rest(own, best)
        if skip is not None:
            yield skip
        elif weights.ordered:
            yield from _by_structure(own, weights.tensors)


def _tried(own: Mapping[str, Any], given: Mapping[str, Any]) -> Iterator[Idea]:
    """Yield what each shipped map does, with all weights and with those under a prefix."""
    counts = Counter(name.partition('.')[0] for name in given if '.' in name)
    prefixes = [f'{first}.' for first, count in counts.items() if count >= _ENOUGH * len(given)]
    for prefix in ('', *prefixes):
        part = {n[len(prefix) :]: t for n, t in given.items() if n.startswith(prefix)}
        for rule in (None, *MAPS):
            settings = [f'prefix={prefix!r}'] if prefix else []
            settings += [f'rename={rule!r}'] if rule else []
            if settings:
                yield from _attempted(own, part, rule, ', '.join(settings))


def _attempted(
    own: Mapping[str, Any], part: Mapping[str, Any], rule: str | None, settings: str
) -> Iterator[Idea]:
    """Yield what a map does, for each way to leave out the names of wrappers."""
    # A map for other networks may make two names one.
    with contextlib.suppress(EasyPrunerError):
        for attempt in attempts(part, own, rename_of(rule)):
            named = {new: part[old] for old, new in attempt.names.items()}
            yield Idea(settings, named, compare(own, named))


def _skip_rest(own: Mapping[str, Any], best: Idea) -> Idea | None:
    """Return the settings that leave out the rest, if it belongs to few modules."""
    wrong = best.comparison.wrong
    modules = list(dict.fromkeys(name.rpartition('.')[0] for name in wrong))
    if len(modules) > _SKIPPED or best.comparison.fitting < _ENOUGH * len(own):
        return None
    patterns = [rf'{re.escape(module)}\..*' for module in modules if module]
    patterns += [re.escape(name) for name in wrong if '.' not in name]
    settings = ', '.join(filter(None, [best.settings, f'skip={patterns!r}']))
    given = {name: tensor for name, tensor in best.given.items() if name not in wrong}
    return Idea(settings, given, Comparison(best.comparison.fitting))


def _by_structure(own: Mapping[str, Any], given: Mapping[str, Any]) -> Iterator[Idea]:
    """Yield the map by structure, if there is exactly one."""
    found = structural_map(given, own)
    if found is None:
        return
    rule = as_rename(found, list(given))
    named = {rule(name): tensor for name, tensor in given.items()}
    idea = Idea(f'rename={rule.label}', named, compare(own, named))
    if len(rule.rules) > _RULES or len(idea.settings) > _LONG * _RULES:
        idea = Idea(f'rename={BY_STRUCTURE!r}', named, idea.comparison)
    rest = None if idea.comparison.exact else _skip_rest(own, idea)
    yield rest or idea


def _what_to_try(
    own: Mapping[str, Any], weights: Weights, best: Idea, ideas: Sequence[Idea]
) -> Iterator[str]:
    """Yield the last lines of the message."""
    if heads := _outputs(own, best):
        yield heads
    if max(idea.comparison.fitting for idea in (best, *ideas)) < _ENOUGH * len(own):
        yield 'This looks like the checkpoint of another network.'
    if not ideas:
        yield (
            'What to try: rename=[(REGEX, REPLACEMENT), ...] for other names, skip=[REGEX, ...] '
            'for weights that keep their initial values; check that model and file belong together'
        )
        return
    yield 'What to try:'
    for idea in ideas:
        c, total = idea.comparison, len(own)
        result = 'everything fits' if c.exact else f'{c.fitting} of {total} weights fit'
        if 'skip=' in idea.settings:
            result += ' or keeps its initial value'
        yield f'  {idea.settings} ({result})'
    if f'rename={BY_STRUCTURE!r}' in ideas[-1].settings:
        yield from _rules_of(own, weights.tensors)


def _rules_of(own: Mapping[str, Any], given: Mapping[str, Any]) -> Iterator[str]:
    """Yield the first rules of the map by structure."""
    found = structural_map(given, own)
    rules = as_rename(found, list(given)).rules if found else ()
    for pattern, replacement in rules[:_RULES]:
        yield f'    {pattern} => {replacement}'
    if len(rules) > _RULES:
        yield f'    and {len(rules) - _RULES} more rules'


def _outputs(own: Mapping[str, Any], best: Idea) -> str:
    """Return a sentence on another number of classes, if that is all that does not fit."""
    c = best.comparison
    if c.missing or c.unexpected or not c.other:
        return ''
    pairs = [(tuple(best.given[name].shape), tuple(own[name].shape)) for name in c.other]
    outputs = {(theirs[:1], ours[:1]) for theirs, ours in pairs}
    modules = {name.rpartition('.')[0] for name in c.other}
    if len(outputs) > 1 or len(modules) > 1 or any(a[1:] != b[1:] for a, b in pairs):
        return ''
    ((theirs, ours),) = outputs
    return (
        f'The checkpoint has {theirs[0]} classes and the model has {ours[0]}, in {modules.pop()}: '
        f'give the model {theirs[0]} classes, or skip this layer, which then starts anew.'
    )
