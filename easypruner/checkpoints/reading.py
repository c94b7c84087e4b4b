"""Finds the state dict in the content of a checkpoint, in the layouts of common libraries."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from easypruner.base.describe import describe
from easypruner.checkpoints.files import is_state_dict, read_file
from easypruner.errors import EasyPrunerError, nearest

_USUAL = ('', 'state_dict', 'model_state_dict', 'model_state', 'model', 'module', 'net', 'network',
          'weights', 'params')  # fmt: skip
"""Where libraries put the weights of a network, in the order in which they are looked for."""
_AVERAGED = ('ema', 'swa', 'averag', 'shadow')
_DEPTH = 3


@dataclass(frozen=True)
class Weights:
    """The state dict of a checkpoint.

    Attributes:
        source: the path of the checkpoint.
        tensors: the state dict.
        ordered: whether its weights have the order in which the network registers them.
        notes: what a user has to know about the choice of this state dict.
    """

    source: str
    tensors: Mapping[str, Tensor]
    ordered: bool = True
    notes: tuple[str, ...] = ()


def read_checkpoint(path: str | os.PathLike[str], key: str | None = None) -> Weights:
    """Read the weights of a checkpoint without unpickling.

    Args:
        path: a file that ``torch.save`` wrote, a file of safetensors, a folder of Hugging Face, or
            a URL.
        key: the entry that has the weights, such as ``'state_dict_ema'``; None for the usual one.

    Raises:
        EasyPrunerError: the file cannot be read, or does not have such weights.
    """
    content, ordered = read_file(path)
    source = os.fspath(path)
    if not isinstance(content, Mapping):
        raise EasyPrunerError(
            f'the checkpoint {source!r} is {describe(content)} and does not contain a state dict; '
            'expected a state dict saved by torch.save'
        )
    found = dict(_state_dicts(content))
    chosen = _chosen(found, key, source, content)
    return Weights(source, dict(found[chosen]), ordered, _notes(content, found, chosen))


def _state_dicts(content: Any, path: str = '') -> Iterator[tuple[str, Mapping[str, Tensor]]]:
    """Yield the path and the state dict of each one in a checkpoint."""
    if is_state_dict(content):
        yield path, content
    elif isinstance(content, Mapping) and path.count('.') < _DEPTH:
        for key, value in content.items():
            if isinstance(key, str):
                yield from _state_dicts(value, f'{path}.{key}' if path else key)


def _chosen(
    found: Mapping[str, Any], key: str | None, source: str, content: Mapping[str, Any]
) -> str:
    """Return the path of the state dict to load."""
    where = f'the checkpoint {source!r}'
    if not found:
        raise EasyPrunerError(
            f'{where} does not contain a state dict; expected names of weights with tensors, got '
            f'{describe(content)}'
        )
    if key is not None:
        if key not in found:
            raise EasyPrunerError(
                f'{where} has no weights under key={key!r}; {nearest(key, [*filter(None, found)])}'
            )
        return key
    usual = next((path for path in _USUAL if path in found), None)
    nested = (path for path in found if all(part in _USUAL for part in path.split('.')))
    if usual is None:
        usual = next(nested, None) if len(found) > 1 else next(iter(found))
    if usual is not None:
        return usual
    raise EasyPrunerError(
        f'{where} has {len(found)} state dicts, under {", ".join(map(repr, found))}; choose one '
        f'with key={next(iter(found))!r}'
    )


def _notes(content: Mapping[str, Any], found: Mapping[str, Any], chosen: str) -> tuple[str, ...]:
    """Return what to say about averages in the checkpoint."""
    averages = [p for p in found if p != chosen and any(word in p.lower() for word in _AVERAGED)]
    if not averages:
        return ()
    name = averages[0]
    meta = content.get('meta')
    if name == 'ema_state_dict' and isinstance(meta, Mapping) and 'mmengine_version' in meta:
        # MMEngine's EMAHook exchanges the two before it saves.
        text = (
            f"the averages of MMEngine's EMAHook, which are in {chosen!r}; key={name!r} has the "
            'weights without averaging'
        )
        return (text,)
    return (f'the weights in {chosen!r}; the averaged ones are in key={name!r}',)
