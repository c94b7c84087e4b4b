"""Finds networks that were exported: in the folder of an export, or in an ONNX file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from easypruner.base.json_fields import Field, read_json
from easypruner.cli.find_network import example_images
from easypruner.errors import ConfigError
from easypruner.runtimes.candidates import Candidate
from easypruner.runtimes.exporting import NETWORK, SUMMARY, UNPRUNED
from easypruner.runtimes.runtime import Exported

_ONNX = '.onnx'
_INPUT = re.compile(r'\[(?P<sizes>[\d, ]*)\] torch\.(?P<dtype>\w+)')


def find_exported(
    name: str, shape: Sequence[int] | None, runtimes: Sequence[str], *, unpruned: bool = True
) -> list[Candidate]:
    """Return the networks that were exported to a place; none if it is not an export.

    Args:
        name: the folder of an export, or an ONNX file.
        shape: the shape of the input tensor; None for that of the export.
        runtimes: the names of the runtimes that run an ONNX file.
        unpruned: whether to return the unpruned network of an export as well, before the other.

    Raises:
        ConfigError: a file is missing or damaged, or the shape of the inputs is not known.
    """
    path = Path(name)
    if (path / SUMMARY).is_file():
        return list(_in_folder(path, shape, unpruned))
    if path.suffix != _ONNX:
        return []
    if not path.is_file():
        raise ConfigError(f'there is no file {name!r}')
    summary = path.parent.parent / SUMMARY
    if shape is None and not summary.is_file():
        raise ConfigError(
            f'the shape of the inputs of {name!r} is not known, because it is not in a folder of '
            'easypruner export; give it with --input-shape'
        )
    exported = Exported(path, _files_of(path), dynamic_batch=True)
    inputs = _inputs(read_json(summary, ConfigError), shape) if shape is None else _images(shape)
    return [Candidate(name, None, inputs, dict.fromkeys(runtimes, exported))]


def _in_folder(folder: Path, shape: Sequence[int] | None, unpruned: bool) -> Iterator[Candidate]:
    """Yield the networks of the folder of an export."""
    summary = read_json(folder / SUMMARY, ConfigError)
    inputs = _inputs(summary, shape)
    for network, name in ((UNPRUNED, f'{folder} (unpruned)'), (NETWORK, str(folder))):
        exported = {
            entry['runtime'].text(): _exported(folder / entry['path'].text(), entry)
            for entry in summary['files'].items()
            if entry['network'].value == network
        }
        if exported and (unpruned or network != UNPRUNED):
            yield Candidate(name, None, inputs, exported)


def _exported(path: Path, entry: Field) -> Exported:
    if not path.exists():
        raise ConfigError(f'{str(path)!r} of the export is missing; export the network again')
    return Exported(path, _files_of(path), bool(entry['dynamic_batch'].value))


def _files_of(path: Path) -> tuple[Path, ...]:
    """Return the files of an exported network: in its folder, or beside it with its name."""
    found = path.rglob('*') if path.is_dir() else path.parent.glob(f'{path.stem}.*')
    return tuple(sorted(file for file in found if file.is_file()))


def _inputs(summary: Field, shape: Sequence[int] | None) -> tuple[Tensor, ...]:
    """Return inputs like those with which a network was exported, or images of a shape."""
    if shape is not None:
        return _images(shape)
    return tuple(_input(entry) for entry in summary['inputs'].items())


def _input(entry: Field) -> Tensor:
    match = _INPUT.fullmatch(entry.text())
    dtype = getattr(torch, match['dtype'], None) if match else None
    if match is None or not isinstance(dtype, torch.dtype):
        entry.fail('the shape and type of a tensor, such as [1, 3, 8, 8] torch.float32')
    sizes = [int(size) for size in match['sizes'].split(',') if size.strip()]
    return example_images(sizes).to(dtype)


def _images(shape: Sequence[int]) -> tuple[Tensor, ...]:
    return (example_images(shape),)
