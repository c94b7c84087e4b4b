"""What the stages of a run have left in its work directory: times, training curves and masks.

All of it is optional: a stage whose files are missing or damaged is left out.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from easypruner.base.files import file_hash

if TYPE_CHECKING:
    from numpy.typing import NDArray

MASKS = 'masks.safetensors'
_LARGEST_LOG = 2**26
_ACCURACIES = ('accuracy/top1', 'accuracy')


@dataclass(frozen=True)
class StageFiles:
    """A finished stage of a run.

    Attributes:
        name: the name of the stage.
        folder: its folder.
        identity: the hash of its config and of all before it; equal for a stage that runs share.
        seconds: its wall time.
        weights: the hash of the weights after it; '' if it is not known.
        rows: the number of rows of the table up to it.
    """

    name: str
    folder: Path
    identity: str
    seconds: float
    weights: str
    rows: int


@dataclass(frozen=True)
class Curve:
    """The training curve of a stage.

    Attributes:
        stage: the name of the stage.
        loss: epoch -> the loss on the training data.
        accuracy: epoch -> the accuracy on the validation data, in percent.
    """

    stage: str
    loss: Mapping[int, float]
    accuracy: Mapping[int, float]

    @property
    def epochs(self) -> int:
        """The number of its epochs."""
        return max((*self.loss, *self.accuracy), default=0)


@dataclass(frozen=True)
class Agreement:
    """How far two sets of masks agree.

    Attributes:
        share: the share of units that both keep or both remove.
        chance: the share that random masks of the same widths would have.
    """

    share: float
    chance: float


def read_stages(work_dir: Path) -> tuple[StageFiles, ...]:
    """Return the finished stages of a run in order."""
    return tuple(filter(None, map(_read_stage, _folders(work_dir))))


def has_whole_results(work_dir: Path) -> bool:
    """Return whether the files that a finished run leaves to its user are there, undamaged.

    Its last stage has their hashes, such as that of pruned.pth. Without stages, nothing is known of
    such files, so that none can be missing.
    """
    folders = _folders(work_dir)
    if not folders:
        return True
    try:
        content = json.loads((folders[-1] / 'state.json').read_bytes())
        results = dict(content['results'])
        return all(_is_whole(work_dir / name, hashed) for name, hashed in results.items())
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return False


def _is_whole(path: Path, expected: str) -> bool:
    return path.is_file() and (not expected or file_hash(path) == expected)


def read_curves(work_dir: Path) -> tuple[Curve, ...]:
    """Return the curves of all stages that have trained, from the scalars that MMEngine logs."""
    curves = [_read_curve(folder) for folder in _folders(work_dir)]
    return tuple(curve for curve in curves if curve.loss)


def read_masks(path: Path) -> dict[str, NDArray[np.bool_]] | None:
    """Return the masks of a file, group -> bool array; None if it has none."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        found = load_file(path)
    except (OSError, SafetensorError, KeyError, ValueError, TypeError):
        return None
    return found if all(m.dtype == bool and m.ndim == 1 for m in found.values()) else None


def stage_masks(work_dir: Path) -> list[tuple[str, dict[str, NDArray[np.bool_]]]]:
    """Return the masks of each stage that has selected some, with its name."""
    found = [(_name(folder), read_masks(folder / MASKS)) for folder in _folders(work_dir)]
    return [(name, masks) for name, masks in found if masks]


def agreement(
    one: Mapping[str, NDArray[np.bool_]], other: Mapping[str, NDArray[np.bool_]]
) -> Agreement | None:
    """Return how far masks agree; None if they are masks of different networks."""
    shapes = [{name: mask.shape for name, mask in masks.items()} for masks in (one, other)]
    total = sum(mask.size for mask in one.values())
    if shapes[0] != shapes[1] or not total:
        return None
    same = sum(int((mask == other[name]).sum()) for name, mask in one.items())
    chance = 0.0
    for name, mask in one.items():
        a, b = float(mask.mean()), float(other[name].mean())
        chance += mask.size * (a * b + (1 - a) * (1 - b))
    return Agreement(same / total, chance / total)


def _folders(work_dir: Path) -> list[Path]:
    """Return the folders of the stages, such as ``05_finetune``, in order."""
    numbered = [path for path in work_dir.glob('[0-9]*_*') if path.is_dir()]
    known = [path for path in numbered if path.name.partition('_')[0].isdecimal()]
    return sorted(known, key=lambda path: (int(path.name.partition('_')[0]), path.name))


def _name(folder: Path) -> str:
    return folder.name.partition('_')[2]


def _read_stage(folder: Path) -> StageFiles | None:
    name = _name(folder)
    try:
        content = json.loads((folder / 'state.json').read_bytes())
        seconds = content['seconds'].get(name, 0.0)
        return StageFiles(
            name=name,
            folder=folder,
            identity=str(content['stage']),
            seconds=float(seconds) if math.isfinite(float(seconds)) else 0.0,
            weights=str(content['files'].get(content['checkpoint'], '')),
            rows=len(content['rows']),
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _read_curve(folder: Path) -> Curve:
    loss: dict[int, float] = {}
    accuracy: dict[int, float] = {}
    # A stage that was resumed has a folder for each start. Later ones repeat no finished epoch.
    for path in sorted(folder.glob('*/vis_data/scalars.json')):
        for entry in _lines(path):
            if _is_number(entry.get('loss')) and _is_count(entry.get('epoch')):
                loss[entry['epoch']] = float(entry['loss'])
            value = next((entry[k] for k in _ACCURACIES if _is_number(entry.get(k))), None)
            if value is not None and _is_count(entry.get('step')):
                accuracy[entry['step']] = float(value)
    # A stage of iterations logs those as steps.
    last = max(loss, default=0)
    return Curve(_name(folder), loss, {e: a for e, a in accuracy.items() if 0 < e <= last})


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    try:
        if path.stat().st_size > _LARGEST_LOG:
            return
        text = path.read_text(encoding='utf-8', errors='replace')
    except OSError:
        return
    for line in text.splitlines():
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(entry, dict):
            yield entry


def _is_number(value: Any) -> bool:
    known = isinstance(value, int | float) and not isinstance(value, bool)
    return known and abs(value) < 1e300


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**7
