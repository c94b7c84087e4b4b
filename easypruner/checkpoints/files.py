"""Reads checkpoint files of any format without unpickling: torch, safetensors, Hugging Face."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch
from torch import Tensor

from easypruner.base.files import zip_damage
from easypruner.errors import EasyPrunerError

FOLDER_FILES = (
    'model.safetensors',
    'model.safetensors.index.json',
    'pytorch_model.bin',
    'pytorch_model.bin.index.json',
)
"""The files of weights in a folder of Hugging Face, in the order in which they are looked for."""
_INDEX = '.index.json'
_HEADER = 8
_SHOWN = 3
_NAMED = re.compile(r'(?:Unsupported global: GLOBAL|Unsupported class) ([\w.]+\.\w+)')
"""How torch names an object in an error; before torch 2.6 this is the only way to find one."""
_KNOWN_OBJECTS = (
    'mmengine.logging.history_buffer.HistoryBuffer',
    'builtins.getattr',
    'numpy.core.multiarray._reconstruct',
    'numpy._core.multiarray._reconstruct',
    'numpy.core.multiarray.scalar',
    'numpy._core.multiarray.scalar',
    'numpy.ndarray',
    'numpy.dtype',
    '_codecs.encode',
    'argparse.Namespace',
    'pathlib.Path',
    'pathlib.PosixPath',
    'pathlib.WindowsPath',
    'pathlib._local.PosixPath',
)
"""What MMEngine, timm and Lightning store beside the weights."""


class _StandIn:
    """An object of a checkpoint that is not a weight. It ignores what it is given."""

    def __new__(cls, *args: Any, **kwargs: Any) -> _StandIn:
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


def _stand_in(name: str) -> type[_StandIn]:
    module, _, last = name.rpartition('.')
    return type(last, (_StandIn,), {'__module__': module, '__qualname__': last})


_STAND_INS: list[Any] = [_stand_in(name) for name in _KNOWN_OBJECTS]


@contextlib.contextmanager
def _known_objects_ignored() -> Iterator[None]:
    """Let torch's reader of plain weights put empty objects in the place of known ones.

    No class or function that a file names is looked up or called.
    """
    # torch.serialization.safe_globals() does the same, from torch 2.5 on.
    # A copy, because torch 2.4 returns the list that it changes.
    before = [*torch.serialization.get_safe_globals()]
    torch.serialization.add_safe_globals(_STAND_INS)
    try:
        yield
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)


def is_url(path: str | os.PathLike[str]) -> bool:
    """Return whether a path is a URL, such as ``https://...``; a drive letter is none."""
    return re.match(r'[a-zA-Z][\w+.-]+://', os.fspath(path)) is not None


def downloaded(url: str) -> Path:
    """Return the local copy of a URL in torch's cache, which is made if it is missing.

    Raises:
        EasyPrunerError: it cannot be downloaded.
    """
    folder = Path(torch.hub.get_dir()) / 'checkpoints'
    file = folder / Path(urlsplit(url).path).name
    if file.is_file():
        return file
    match = re.search(r'-([a-f0-9]{8,})\.', file.name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(file), match[1] if match else None, progress=False)
    # urllib and torch raise errors of many classes.
    except Exception as error:
        raise EasyPrunerError(
            f'the checkpoint {url!r} cannot be downloaded: {error}; '
            f'download it by other means, and give the path of the file'
        ) from error
    return file


def read_file(path: str | os.PathLike[str]) -> tuple[Any, bool]:
    """Return the content of a checkpoint, and whether its weights have the network's order.

    Args:
        path: a file that ``torch.save`` wrote, a file of safetensors, a folder of Hugging Face or
            its index file, or a URL of a file.

    Raises:
        EasyPrunerError: there is none, it is damaged, or it can only be unpickled.
    """
    file = downloaded(os.fspath(path)) if is_url(path) else Path(path)
    if file.is_dir():
        file = _file_in(file)
    if file.name.endswith(_INDEX):
        return _read_shards(file)
    if _is_safetensors(file):
        return _read_safetensors(file), False
    return load_plain(file, EasyPrunerError, ignoring=_known_objects_ignored), True


def _file_in(folder: Path) -> Path:
    for name in FOLDER_FILES:
        if (folder / name).is_file():
            return folder / name
    there = sorted(path.name for path in folder.iterdir())
    raise EasyPrunerError(
        f'the folder {str(folder)!r} has no checkpoint of Hugging Face; expected one of '
        f'{", ".join(FOLDER_FILES)}, got {", ".join(there[:_SHOWN]) or "nothing"}'
        + (f' and {len(there) - _SHOWN} more' if len(there) > _SHOWN else '')
        + '; give the path of a file'
    )


def _read_shards(index: Path) -> tuple[dict[str, Any], bool]:
    """Read the files that an index names."""
    try:
        names = json.loads(index.read_text(encoding='utf-8'))['weight_map']
        files = sorted({str(file) for file in names.values()})
    except FileNotFoundError:
        raise EasyPrunerError(f'there is no checkpoint {str(index)!r}; check the path') from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise EasyPrunerError(
            f'the index {str(index)!r} of a checkpoint cannot be read: '
            f"{type(error).__name__}: {error}; expected a JSON file with a 'weight_map'"
        ) from error
    content: dict[str, Any] = {}
    for file in files:
        if Path(file).name != file:
            raise EasyPrunerError(
                f'the index {str(index)!r} names {file!r}; expected a file beside the index'
            )
        content.update(read_file(index.parent / file)[0])
    absent = [name for name in names if name not in content]
    if absent:
        raise EasyPrunerError(
            f'the index {str(index)!r} names {absent[0]!r} and {len(absent) - 1} more weights that '
            'its files do not have; copy all files again'
        )
    return content, False


def _is_safetensors(file: Path) -> bool:
    """Return whether a file has the header of safetensors, whatever its name is."""
    if file.suffix == '.safetensors':
        return True
    if not file.is_file():
        return False
    with file.open('rb') as opened:
        start = opened.read(_HEADER + 1)
    length = int.from_bytes(start[:_HEADER], 'little')
    return start[_HEADER:] == b'{' and length < file.stat().st_size


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(file))
    except FileNotFoundError:
        raise EasyPrunerError(f'there is no checkpoint {str(file)!r}; check the path') from None
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise EasyPrunerError(
            f'the checkpoint {str(file)!r} is damaged: {error}; copy it again, or write it anew'
        ) from error


def load_plain(
    path: str | os.PathLike[str],
    error: type[Exception],
    map_location: Any = 'cpu',
    ignoring: Callable[[], AbstractContextManager[object]] = contextlib.nullcontext,
) -> Any:
    """Read what ``torch.save`` wrote, without unpickling anything else than tensors.

    Args:
        path: the path of the file.
        error: the class of the errors.
        map_location: the device of the tensors.
        ignoring: makes the context in which torch reads the file.

    Raises:
        Exception: the file does not exist, is damaged or has other objects; of the given class.
    """
    file = os.fspath(path)
    try:
        # torch.load() does not compare the checksums that torch.save() has written.
        if damage := zip_damage(file):
            raise error(
                f'the checkpoint {file!r} is damaged: {damage}; copy it again, or write it anew'
            )
        with ignoring():
            return torch.load(file, map_location=map_location, weights_only=True)
    except FileNotFoundError:
        raise error(f'there is no checkpoint {file!r}; check the path') from None
    except error:
        raise
    except Exception as problem:
        text = (str(problem) or type(problem).__name__).splitlines()[0]
        objects = _objects_in(file) or _NAMED.findall(str(problem))
        if objects:
            raise error(_needs_unpickling(file, objects)) from problem
        raise error(
            f'the checkpoint {file!r} cannot be read as plain weights: {text}; expected a state '
            'dict saved by torch.save, or a file of safetensors'
        ) from problem


def _objects_in(file: str) -> list[str]:
    """Return the classes and functions that a file names, and that plain weights do not need."""
    look = getattr(torch.serialization, 'get_unsafe_globals_in_checkpoint', None)
    if look is None:
        return []
    # It raises errors of many classes for files that torch.save() did not write.
    with contextlib.suppress(Exception):
        found = {*look(file)}
        return sorted(found - {*_KNOWN_OBJECTS}) or sorted(found)
    return []


def _needs_unpickling(file: str, objects: list[str]) -> str:
    more = f' and {len(objects) - _SHOWN} more' if len(objects) > _SHOWN else ''
    is_model = any(name.startswith('torch.nn.modules.') for name in objects)
    what = 'a whole model' if is_model else 'more than weights'
    return (
        f'the checkpoint {file!r} cannot be read as plain weights: it has objects of '
        f'{", ".join(objects[:_SHOWN])}{more}, which only unpickling can load, and that can run '
        f'any code. The file is {what}; save the weights alone where it was made, with '
        "torch.save(model.state_dict(), 'weights.pth'), and use that file"
    )


def is_state_dict(value: object) -> bool:
    """Return whether a value maps names to tensors."""
    return (
        isinstance(value, Mapping)
        and bool(value)
        and all(isinstance(name, str) for name in value)
        and all(isinstance(v, Tensor) or n.endswith('_extra_state') for n, v in value.items())
    )
