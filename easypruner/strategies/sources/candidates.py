"""Candidates: masks, and what the network under them is worth on some batches."""

from __future__ import annotations

import copy
import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from easypruner.base.checks import check_count, check_name
from easypruner.base.distributed import average_buffers, is_main
from easypruner.base.modules import copy_of
from easypruner.base.nested import tensors_in
from easypruner.base.randomness import fixed_seed
from easypruner.graph import ChannelGraph
from easypruner.graph.graph import prune
from easypruner.graph.masks import Masks
from easypruner.strategies.context import Context
from easypruner.strategies.measures.calibration import calibrate

MEASURES = ('loss', 'accuracy')
"""What tells candidates apart: the training loss, or the accuracy on the validation data."""

RECORDS = 'candidates.jsonl'
"""The file, in the context's folder, of what was measured so far."""

_Value = TypeVar('_Value')


def from_main(value: _Value) -> _Value:
    """Return the value that the main process has; each process has to call this."""
    if not dist.is_initialized():
        return value
    values = [value]
    dist.broadcast_object_list(values)
    return values[0]


@dataclass(frozen=True)
class Drawn:
    """Training batches, drawn once: a loader that shuffles has others in each pass.

    They are copies, for a loader may use its memory again, and are handed out as copies, for a
    loss may work on its batch in place.

    Attributes:
        calibration: on which batch norms are adapted.
        loss: over which the loss is a mean.
    """

    calibration: tuple[Any, ...] = ()
    loss: tuple[Any, ...] = ()

    def digest(self) -> str:
        """Return a hash of all arrays, numbers and texts in them; other objects have no say."""
        digest = hashlib.sha256()
        for part in _parts([*self.calibration, 'then', *self.loss]):
            digest.update(part)
        return digest.hexdigest()


@dataclass(frozen=True)
class Trial:
    """How a candidate is tried: really cut, batch norm adapted, then measured.

    Attributes:
        by: a name of :data:`MEASURES`.
        batches: of training data that the loss is a mean over.
        calibration_batches: of training data that batch norm is adapted on; 0 leaves it alone.
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

    def drawn(self, context: Context) -> Drawn:
        """Return the batches on which all candidates are tried.

        They stay in memory, as many as :attr:`batches` and :attr:`calibration_batches` say, where
        the loader has put them.
        """
        quiet = replace(context, track=lambda items, total: items)
        batches = {'calibration': self.calibration_batches, 'loss': self.batches}
        if self.by == 'accuracy':
            del batches['loss']
        context.needed('evaluate' if self.by == 'accuracy' else 'loss', self.requested_by)
        with fixed_seed(context.seed), torch.no_grad():
            return Drawn(
                **{
                    purpose: tuple(map(_copied, quiet.some_batches(count, self.requested_by)))
                    for purpose, count in batches.items()
                    if count
                }
            )

    def fitness(self, graph: ChannelGraph, masks: Masks, context: Context, drawn: Drawn) -> float:
        """Return the accuracy in percent, or the loss below zero: higher is better; NaN if it is.

        The model of ``graph`` is left as it was: a copy is cut.

        Args:
            graph: of the model.
            masks: of the candidate.
            context: the one of which the batches are.
            drawn: what :meth:`drawn` returned.
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

    def _loss(self, model: nn.Module, context: Context, drawn: Drawn) -> float:
        loss = context.needed('loss', self.requested_by)
        batches = map(copy.deepcopy, drawn.loss)
        losses = torch.stack([loss(model, batch).detach().float() for batch in batches])
        mean = losses.mean()
        if dist.is_initialized():
            dist.all_reduce(mean)
            mean /= dist.get_world_size()
        return float(mean)


class Trials:
    """Tries candidates on the same batches, each once.

    What was measured before a stop, and on the same batches, is not measured again. A folder
    belongs to one set of validation data: nothing tells in which accuracies were measured.

    Args:
        trial: how each is tried.
        graph: of the model.
        context: its folder, if there is one, keeps a line for each candidate.
    """

    def __init__(self, trial: Trial, graph: ChannelGraph, context: Context) -> None:
        self._trial = trial
        self._graph = graph
        self._context = context
        self._path = None if context.folder is None else context.folder / RECORDS

    @cached_property
    def _drawn(self) -> Drawn:
        return self._trial.drawn(self._context)

    @cached_property
    def _setting(self) -> str:
        """A hash of all that a measurement hangs on."""
        world = dist.get_world_size() if dist.is_initialized() else 1
        hashes = [_weights(self._graph.model), self._drawn.digest()]
        return _digest([repr(self._trial), self._context.seed, world, *hashes])

    @cached_property
    def _known(self) -> dict[str, float]:
        """Masks' hash -> fitness. The main process reads for all, as it alone writes."""
        if self._path is None or not is_main():
            return from_main({})
        return from_main(_read(self._path, self._setting))

    def fitness(self, masks: Masks) -> float:
        """Return what masks are worth, higher = better; minus infinity where it is no number."""
        key = masks_digest(masks)
        if key not in self._known:
            found = self._trial.fitness(self._graph, masks, self._context, self._drawn)
            self._known[key] = found if math.isfinite(found) else -math.inf
            self._write(key)
        return self._known[key]

    def _write(self, key: str) -> None:
        if self._path is None or not is_main():
            return
        known = self._known[key]
        line = {
            'setting': self._setting,
            'masks': key,
            'fitness': known if math.isfinite(known) else None,
        }
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open('a+b') as file:
            # A stop in the middle of a line leaves it without an end.
            if file.tell() and not _ends_a_line(self._path):
                file.write(b'\n')
            file.write(json.dumps(line, allow_nan=False).encode() + b'\n')


def _copied(batch: Any) -> Any:
    """Return a copy of a batch; of tensors that were computed with gradients, of their values."""
    tensors = (tensor for _, tensor in tensors_in(batch))
    return copy.deepcopy(batch, {id(t): t.detach().clone() for t in tensors if not t.is_leaf})


def masks_digest(masks: Masks) -> str:
    """Return a hash of masks."""
    return _digest([[name, mask.tolist()] for name, mask in sorted(masks.items())])


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def _weights(model: nn.Module) -> str:
    """Return a hash of a model's parameters and buffers."""
    digest = hashlib.sha256()
    for named in (*model.named_parameters(), *model.named_buffers()):
        for part in _parts(named):
            digest.update(part)
    return digest.hexdigest()


def _parts(value: Any) -> Iterator[bytes]:
    """Yield the bytes of arrays, numbers and texts, however nested; of other objects nothing."""
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
    """Return masks' hash -> fitness, of the lines that were written under a setting."""
    if not path.is_file():
        return {}
    lines = path.read_text(encoding='utf-8', errors='replace').splitlines()
    found = [_entry(text, setting) for text in lines]
    return dict(entry for entry in found if entry is not None)


def _entry(text: str, setting: str) -> tuple[str, float] | None:
    """Return what a line says of a setting; None of another, or of half a line left by a stop."""
    try:
        line = json.loads(text)
        if line['setting'] != setting:
            return None
        masks, value = str(line['masks']), line['fitness']
    # A line may be anything; thousands of brackets are too deep for the reader.
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    if value is None:
        return masks, -math.inf
    return (masks, value) if isinstance(value, float) and math.isfinite(value) else None


def _ends_a_line(path: Path) -> bool:
    with path.open('rb') as file:
        file.seek(-1, 2)
        return file.read(1) == b'\n'
