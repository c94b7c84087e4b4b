"""Reads a file of masks: recognizes its format by its content, and never runs code from it."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from easypruner.base.describe import describe
from easypruner.base.files import zip_damage
from easypruner.base.json_fields import check_depth
from easypruner.errors import MaskError
from easypruner.graph import Masks
from easypruner.strategies.sources.mask_files import (
    mmrazor_subnet,
    nni_masks,
    timm_structure,
    torch_pruning_history,
)
from easypruner.strategies.sources.mask_files.contents import GroupMasks, MaskContent
from easypruner.strategies.sources.mask_files.layer_masks import LayerMasks

# A file of torch.save starts as a zip archive; one of an old torch with a pickled magic number.
_ZIP = b'PK\x03\x04'
_PICKLED_NUMBER = b'l\xfc\x9cF\xf9 j\xa8P\x19'
# safetensors refuses a longer header, so a longer one means another format.
_LONGEST_HEADER = 100_000_000
_LONGEST_TEXT = 64_000_000
_YAML_TUPLE = 'tag:yaml.org,2002:python/tuple'


def read_masks(path: str | os.PathLike[str]) -> MaskContent:
    """Read a file of masks. Only tensors and plain values are unpickled.

    Raises:
        MaskError: the file does not exist, holds no masks, or is in another format.
    """
    file = Path(path)
    if not file.is_file():
        raise MaskError(f'there is no mask file {str(file)!r}; check the path')
    with file.open('rb') as opened:
        start = opened.read(32)
    if _is_safetensors(start):
        masks = Masks.load(file)
        content: MaskContent = GroupMasks(masks) if _is_of_groups(file) else LayerMasks(masks)
        empty = not masks
    elif start.startswith(_ZIP) or (start.startswith(b'\x80') and _PICKLED_NUMBER in start):
        content = _of_tensors(_unpickled(file), file)
        empty = not content.names
    else:
        content = _of_text(file)
        empty = not content.names
    if empty:
        raise MaskError(f'{str(file)!r} holds no masks; expected one for each layer or group')
    return content


def _is_safetensors(start: bytes) -> bool:
    """Tell whether a file starts with the length of a header, then with its opening brace."""
    return start[8:9] == b'{' and int.from_bytes(start[:8], 'little') <= _LONGEST_HEADER


def _is_of_groups(file: Path) -> bool:
    """Tell whether EasyPruner wrote the file."""
    from safetensors import safe_open

    with safe_open(file, 'pt') as opened:
        return (opened.metadata() or {}).get('easypruner') == 'masks'


def _of_tensors(content: Any, file: Path) -> MaskContent:
    """Return what a file of ``torch.save`` says."""
    if torch_pruning_history.looks_like(content):
        return torch_pruning_history.parse(content, str(file))
    if nni_masks.looks_like(content):
        return nni_masks.parse(content, str(file))
    return LayerMasks(_checked(content, file))


def _of_text(file: Path) -> MaskContent:
    """Return what a text says."""
    if file.stat().st_size > _LONGEST_TEXT:
        raise _unknown(file, f'it is larger than {_LONGEST_TEXT // 1_000_000} MB')
    try:
        text = file.read_bytes().decode()
    except UnicodeDecodeError:
        raise _unknown(file, 'nor is it a text') from None
    if timm_structure.looks_like(text):
        return timm_structure.parse(text, str(file))
    content = _parsed(text, file)
    if torch_pruning_history.looks_like(content):
        return torch_pruning_history.parse(content, str(file))
    if mmrazor_subnet.looks_like(content):
        return mmrazor_subnet.parse(content, str(file))
    mmrazor_subnet.refuse_others(content, str(file))
    raise _unknown(file, f'as a text it holds {describe(content)}')


def _parsed(text: str, file: Path) -> Any:
    """Return the content of JSON or YAML."""
    try:
        content = json.loads(text) if text.lstrip()[:1] in ('{', '[') else _parsed_yaml(text)
        check_depth(content)
    except (ValueError, RecursionError) as error:
        problem = ' '.join(str(error).split())[:200]
        raise _unknown(file, f'as JSON or YAML it cannot be read: {problem}') from None
    return content


def _parsed_yaml(text: str) -> Any:
    """Return the content of YAML.

    Raises:
        ValueError: it is not YAML, or has references, with which a short text can stand for a huge
            one.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        pass

    # mmrazor writes tuples, such as the shape of an input.
    Loader.add_constructor(_YAML_TUPLE, Loader.construct_sequence)
    try:
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text, Loader)):
            raise ValueError('it has references (*name); write it as JSON')
        return yaml.load(text, Loader)  # a safe one
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


class _PlainDict:
    """Stands for ``collections.defaultdict`` in a file: makes a dict and ignores the default."""

    def __new__(cls, *args: Any) -> dict[Any, Any]:  # type: ignore[misc]
        return {}


_PlainDict.__module__ = 'collections'
# Older torch compares the first of them.
_PlainDict.__name__ = _PlainDict.__qualname__ = 'defaultdict'


@contextlib.contextmanager
def _defaultdict_read() -> Iterator[None]:
    """Let torch's reader of plain values read ``defaultdict(dict)``, in which NNI keeps masks."""
    # A copy, because torch 2.4 returns the list that it changes.
    before = [*torch.serialization.get_safe_globals()]
    torch.serialization.add_safe_globals([_PlainDict, dict])
    try:
        yield
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)


def _unpickled(file: Path) -> Any:
    if damage := zip_damage(file):
        raise _unreadable(file, damage)
    try:
        with _defaultdict_read():
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


def _unknown(file: Path, detail: str) -> MaskError:
    return MaskError(
        f'{str(file)!r} cannot be read as masks: it is neither a safetensors file nor one that '
        f'torch.save wrote, and {detail}; expected these, a structure of timm, a sub-network of '
        'mmrazor, or a history of Torch-Pruning as JSON'
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
