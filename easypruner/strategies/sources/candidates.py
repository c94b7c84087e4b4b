"""Candidates: masks, and the loss or accuracy of the network that they leave."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import astuple, dataclass, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from easypruner.base.checks import check_count, check_name
from easypruner.base.distributed import average, average_buffers, from_main, is_main, world_size
from easypruner.base.json_fields import has_own_hash, with_hash
from easypruner.base.modules import copy_of
from easypruner.base.nested import tensors_in
from easypruner.base.randomness import fixed_seed
from easypruner.graph import ChannelGraph, Masks
from easypruner.graph.pruning import prune
from easypruner.graph.recording.inventory import named_tensors
from easypruner.strategies.context import Context
from easypruner.strategies.measures.calibration import calibrate

MEASURES = ('loss', 'accuracy')
"""How candidates are compared: by the training loss, or the accuracy on the validation data."""

RECORDS = 'candidates.jsonl'
"""The file in the context's folder that saves the measured candidates."""


@dataclass(frozen=True)
class DrawnBatches:
    """Training batches, drawn once, because a loader that shuffles yields others in each pass.

    They are copies, because a loader may reuse its memory. Each measurement works on another copy,
    because a loss may change its batch in place.

    Attributes:
        calibration: the batches that batch norms are calibrated on.
        loss: the batches over which the loss is averaged.
    """

    calibration: tuple[Any, ...] = ()
    loss: tuple[Any, ...] = ()

    def digest(self) -> str:
        """Return a hash of all arrays, numbers and texts in the batches."""
        return _content_digest([[*self.calibration, 'then', *self.loss]])


@dataclass(frozen=True)
class Measurement:
    """How a candidate is measured: a copy is cut, its batch norms are calibrated, and it runs.

    Attributes:
        by: a name of :data:`MEASURES`.
        batches: the number of batches over which the loss is averaged.
        calibration_batches: the number of batches that batch norms are calibrated on; 0 skips the
            calibration.
        requested_by: the name of the component, for messages.
    """

    by: str
    batches: int
    calibration_batches: int
    requested_by: str

    def __post_init__(self) -> None:
        check_name(self.by, 'by', self.requested_by, MEASURES)
        check_count(self.batches, 'batches', self.requested_by)
        check_count(self.calibration_batches, 'calibration_batches', self.requested_by, least=0)

    def draw_batches(self, context: Context) -> DrawnBatches:
        """Return the batches that all candidates are measured on; they stay in memory."""
        untracked = replace(context, track=lambda items, total: items)

        def draw(count: int) -> tuple[Any, ...]:
            return tuple(map(_copied, untracked.some_batches(count, self.requested_by)))

        by_loss = self.by == 'loss'
        context.needed('loss' if by_loss else 'evaluate', self.requested_by)
        with fixed_seed(context.seed), torch.no_grad():
            calibration = draw(self.calibration_batches) if self.calibration_batches else ()
            return DrawnBatches(calibration, draw(self.batches) if by_loss else ())

    def fitness(
        self, graph: ChannelGraph, masks: Masks, context: Context, drawn: DrawnBatches
    ) -> float:
        """Return the accuracy in percent, or the negative loss: higher is better.

        The result may be NaN. The model of ``graph`` stays unchanged, because a copy is cut.

        Args:
            graph: the channel graph of the model.
            masks: the candidate.
            context: the context that the batches were drawn from.
            drawn: the result of :meth:`draw_batches`.
        """
        model = copy_of(graph.model)
        prune(model, masks, graph=graph.on(model))
        model.eval()
        with fixed_seed(context.seed), torch.no_grad():
            if self.calibration_batches:
                batches = map(copy.deepcopy, drawn.calibration)
                calibrate(model, batches, context.needed('forward', self.requested_by))
                average_buffers(model)
            if self.by == 'accuracy':
                return float(context.needed('evaluate', self.requested_by)(model))
            return -self._loss(model, context, drawn)

    def _loss(self, model: nn.Module, context: Context, drawn: DrawnBatches) -> float:
        loss = context.needed('loss', self.requested_by)
        batches = map(copy.deepcopy, drawn.loss)
        mean = torch.stack([loss(model, batch).detach().float() for batch in batches]).mean()
        average([mean])
        return float(mean)


class Measurements:
    """Measures each candidate once, all on the same batches.

    With a folder, a search that was interrupted does not repeat the measurements that it made on
    the same batches. Use a folder for one set of validation data only: the file does not record
    on which data an accuracy was measured.

    Args:
        measurement: how each candidate is measured.
        graph: the channel graph of the model.
        context: its folder, if any, keeps a file with a line for each candidate.
    """

    def __init__(self, measurement: Measurement, graph: ChannelGraph, context: Context) -> None:
        self._measurement = measurement
        self._graph = graph
        self._context = context
        self._path = None if context.folder is None else context.folder / RECORDS

    @cached_property
    def _drawn(self) -> DrawnBatches:
        return self._measurement.draw_batches(self._context)

    @cached_property
    def _setting(self) -> str:
        """A hash of everything that a measurement depends on."""
        weights = _content_digest(named_tensors(self._graph.model).items())
        hashes = [weights, self._drawn.digest()]
        return _digest([*astuple(self._measurement), self._context.seed, world_size(), *hashes])

    @cached_property
    def _known(self) -> dict[str, float]:
        """Hash of masks -> fitness. Only the main process reads and writes the file."""
        return from_main(_read(self._path, self._setting) if self._path and is_main() else {})

    def fitness(self, masks: Masks) -> float:
        """Return the fitness of masks, higher = better; minus infinity instead of NaN."""
        key = masks_digest(masks)
        if key not in self._known:
            found = self._measurement.fitness(self._graph, masks, self._context, self._drawn)
            self._known[key] = found if math.isfinite(found) else -math.inf
            self._write(key)
        return self._known[key]

    def _write(self, key: str) -> None:
        if self._path is None or not is_main():
            return
        fitness = self._known[key] if math.isfinite(self._known[key]) else None
        line = {'setting': self._setting, 'masks': key, 'fitness': fitness}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open('a+b') as file:
            # An interruption while a line is written leaves it incomplete.
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read() != b'\n':
                    file.write(b'\n')
            file.write(json.dumps(with_hash(line), allow_nan=False).encode() + b'\n')


def _copied(batch: Any) -> Any:
    """Return a copy of a batch. Tensors with a gradient history are copied without it."""
    tensors = (tensor for _, tensor in tensors_in(batch))
    return copy.deepcopy(batch, {id(t): t.detach().clone() for t in tensors if not t.is_leaf})


def masks_digest(masks: Masks) -> str:
    """Return a hash of masks."""
    return _digest([[name, mask.tolist()] for name, mask in sorted(masks.items())])


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def _content_digest(values: Iterable[Any]) -> str:
    """Return a hash of all arrays, numbers and texts in nested values."""
    digest = hashlib.sha256()
    for part in chain.from_iterable(map(_parts, values)):
        digest.update(part)
    return digest.hexdigest()


def _parts(value: Any) -> Iterator[bytes]:
    """Yield the bytes of all arrays, numbers and texts in a nested value; skip other objects."""
    if isinstance(value, np.ndarray) and value.dtype != object:
        yield f'{value.dtype} {value.shape}'.encode()
        yield value.tobytes()
    elif isinstance(value, Tensor) and value.layout == torch.strided:
        flat = value.detach().cpu().contiguous().reshape(-1)
        yield f'{value.dtype} {tuple(value.shape)}'.encode()
        yield flat.view(torch.uint8).numpy().tobytes()
    elif isinstance(value, Mapping):
        yield from _parts([*value.items()])
    elif isinstance(value, list | tuple):
        yield f'{len(value)} items'.encode()
        for item in value:
            yield from _parts(item)
    elif isinstance(value, str | int | float | bytes | None):
        yield repr(value).encode()


def _read(path: Path, setting: str) -> dict[str, float]:
    """Return hash of masks -> fitness, from the lines of a file that have this setting."""
    if not path.is_file():
        return {}
    lines = path.read_text(encoding='utf-8', errors='replace').splitlines()
    return dict(filter(None, (_entry(text, setting) for text in lines)))


def _entry(text: str, setting: str) -> tuple[str, float] | None:
    """Return the masks and fitness of a line; None if it is incomplete or of another setting."""
    try:
        line = json.loads(text)
        if line['setting'] != setting or not has_own_hash(line):
            return None
        masks, value = str(line['masks']), line['fitness']
    # A damaged line may hold anything, such as thousands of nested brackets.
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    if value is None:
        return masks, -math.inf
    return (masks, value) if isinstance(value, float) and math.isfinite(value) else None
