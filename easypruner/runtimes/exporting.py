"""Exporting: networks are written for runtimes, checked against torch, and summarized."""

from __future__ import annotations

import secrets
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from easypruner.base.files import flush_file, make_folder, write_json
from easypruner.base.modules import evaluating
from easypruner.base.nested import map_tensors
from easypruner.base.versions import versions_of
from easypruner.errors import ConfigError, EasyPrunerError
from easypruner.report.text import format_size
from easypruner.runtimes.agreement import check_agreement, check_repeatable
from easypruner.runtimes.program import advising_dtype, input_tensors, on_cpu
from easypruner.runtimes.runtime import Runtime
from easypruner.runtimes.untouched import untouched
from easypruner.runtimes.weights_folder import write_weights

SUMMARY = 'export.json'
NETWORK, UNPRUNED = 'network', 'unpruned'
WEIGHTS = 'weights'


@dataclass(frozen=True)
class NetworkFile:
    """A network in the format of a runtime, whose outputs were compared with torch's.

    Attributes:
        network: which network: ``'network'``, or ``'unpruned'`` for the one before the cuts.
        runtime: the name of the runtime.
        path: the file or folder to load, relative to the folder of the export.
        bytes: the size of all its files.
        error: the largest difference from torch, relative to the largest value of an output.
        dynamic_batch: whether batches of any size can be passed.
        notes: what a user has to know, such as why the size of the batch is fixed.
    """

    network: str
    runtime: str
    path: str
    bytes: int
    error: float
    dynamic_batch: bool
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        batch = 'any batch' if self.dynamic_batch else 'this batch only'
        return (
            f'{self.path}: {format_size(self.bytes)}, {batch}, '
            f'differs from torch by at most {self.error:.1e}'
        )


@dataclass(frozen=True)
class Export:
    """What an export wrote. ``print()`` shows it.

    Attributes:
        folder: the folder.
        model: the name of the network's class.
        inputs: the shape and type of each input tensor.
        files: the networks, in the formats of the runtimes.
        weights: the size of the weights, and how they load.
        versions: package -> version.
    """

    folder: Path
    model: str
    inputs: tuple[str, ...]
    files: tuple[NetworkFile, ...]
    weights: tuple[str, ...] = ()
    versions: Mapping[str, str] | None = None

    def file(self, runtime: str, network: str = NETWORK) -> Path:
        """Return the path of a network in the format of a runtime."""
        for entry in self.files:
            if (entry.runtime, entry.network) == (runtime, network):
                return self.folder / entry.path
        raise EasyPrunerError(f'{str(self.folder)!r} has no {network} for {runtime!r}')

    def lines(self) -> Iterator[str]:
        """Yield a line for each file, its notes after it."""
        for entry in self.files:
            yield str(entry)
            yield from (f'  {note}' for note in entry.notes)
        yield from self.weights

    def __str__(self) -> str:
        return '\n'.join([f'{self.model} in {self.folder}', *(f'  {li}' for li in self.lines())])


def export_network(
    network: nn.Module,
    inputs: Any,
    folder: Path,
    runtimes: Sequence[Runtime],
    *,
    unpruned: nn.Module | None = None,
    overwrite: bool = False,
) -> Export:
    """Write a network for some runtimes, its weights, and a summary; all of them or nothing.

    Args:
        network: the network; it does not change.
        inputs: its example inputs.
        folder: the folder to write.
        runtimes: the runtimes.
        unpruned: the network before the cuts, to be written beside it; None for none.
        overwrite: whether an earlier export in the folder may be replaced.

    Raises:
        ConfigError: a runtime is given twice.
        EasyPrunerError: a runtime is not installed or cannot express the network, its outputs
            differ from torch's, or the folder is in use.
    """
    check_folder(folder, overwrite)
    for runtime, times in Counter(runtime.name for runtime in runtimes).items():
        if times > 1:
            raise ConfigError(f'{runtime} is given {times} times; each runtime has one folder')
    for each in runtimes:
        each.check()
    inputs = map_tensors(inputs, lambda tensor: tensor.detach().cpu())
    networks = {NETWORK: on_cpu(network)}
    if unpruned is not None:
        networks[UNPRUNED] = on_cpu(unpruned)
    with _whole(folder) as new:
        files = [
            _export_for(runtime, each, inputs, new, name)
            for runtime in runtimes
            for name, each in networks.items()
        ]
        with untouched(*networks.values()), evaluating(networks[NETWORK]):
            notes = write_weights(networks[NETWORK], inputs, new / WEIGHTS, networks.get(UNPRUNED))
        export = Export(
            folder=folder,
            model=type(networks[NETWORK]).__name__,
            inputs=tuple(f'{list(t.shape)} {t.dtype}' for t in input_tensors(inputs)),
            files=tuple(files),
            weights=(f'{WEIGHTS}: {format_size(_size(new / WEIGHTS))}', *notes),
            versions={**versions_of(), **{k: v for r in runtimes for k, v in r.versions().items()}},
        )
        content = asdict(export)
        del content['folder']
        write_json(new / SUMMARY, content)
    return export


def _export_for(
    runtime: Runtime, network: nn.Module, inputs: Any, folder: Path, name: str
) -> NetworkFile:
    """Write one network for one runtime, and compare its outputs with torch's."""
    own = folder / runtime.name
    own.mkdir(exist_ok=True)
    with advising_dtype(network), untouched(network), evaluating(network), torch.no_grad():
        # What cannot be checked need not be exported, which may take minutes.
        check_repeatable(network, inputs)
        exported = runtime.export(network, inputs, own, name)
        agreement = check_agreement(
            runtime.load(exported.path),
            network,
            inputs,
            runtime.name,
            dynamic_batch=exported.dynamic_batch,
        )
    return NetworkFile(
        network=name,
        runtime=runtime.name,
        path=str(exported.path.relative_to(folder)),
        bytes=exported.size,
        error=agreement.error,
        dynamic_batch=agreement.other_batch,
        notes=(*exported.notes, *([agreement.reason] if agreement.reason else [])),
    )


def check_folder(folder: Path, overwrite: bool) -> None:
    """Raise EasyPrunerError if an export cannot be written to a folder.

    Args:
        folder: the folder.
        overwrite: whether an earlier export in it may be replaced.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise EasyPrunerError(f'{str(folder)!r} is a file; expected a folder to write')
    if not any(folder.iterdir()):
        return
    if not (folder / SUMMARY).is_file():
        raise EasyPrunerError(
            f'{str(folder)!r} is not empty and has no {SUMMARY} of an earlier export; choose '
            'another folder'
        )
    if not overwrite:
        raise EasyPrunerError(
            f'{str(folder)!r} has an earlier export; replace it with --overwrite '
            '(overwrite=True), or choose another folder'
        )


@contextmanager
def _whole(folder: Path) -> Iterator[Path]:
    """Give a new folder to a block, which takes the place of ``folder`` if nothing fails."""
    folder = folder.resolve()
    make_folder(folder.parent)
    new = _new_folder(folder)
    try:
        yield new
        for file in new.rglob('*'):
            if file.is_file():
                flush_file(file)
        _replace(folder, new)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _new_folder(folder: Path) -> Path:
    """Create an empty folder beside another, or in it if only that may be written."""
    new = _beside(folder)
    try:
        try:
            new.mkdir()
        except OSError:
            if not folder.is_dir():
                raise
            new = folder / new.name
            new.mkdir()
    except OSError as error:
        # The user knows this name.
        error.filename = str(folder)
        raise
    return new


def _beside(folder: Path) -> Path:
    """Return a new path beside a folder."""
    return folder.with_name(f'.{folder.name}.{secrets.token_hex(8)}')


def _replace(folder: Path, new: Path) -> None:
    """Let a new folder take the place of another, if that exists."""
    if not folder.exists():
        new.rename(folder)
        return
    old = _beside(folder)
    try:
        if Path.cwd().is_relative_to(folder):
            raise OSError('a shell would stay in the old folder')
        folder.rename(old)
    except OSError:
        # The folder is also one that cannot be moved if it is a mount, as those of containers are.
        _refill(folder, new)
        return
    try:
        new.rename(folder)
    except OSError:
        old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _refill(folder: Path, new: Path) -> None:
    """Move the content of a new folder into another in place of its own; the summary at last."""
    (folder / SUMMARY).unlink(missing_ok=True)
    for entry in folder.iterdir():
        if entry != new:
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    for entry in sorted(new.iterdir(), key=lambda entry: entry.name == SUMMARY):
        shutil.move(entry, folder / entry.name)


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob('*') if file.is_file())
