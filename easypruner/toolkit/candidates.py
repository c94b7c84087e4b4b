"""Candidates: masks of drawn widths, and what the network under them is worth on some batches."""

from __future__ import annotations

import copy
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from easypruner.arguments import check_count, check_name
from easypruner.chance import same_chance
from easypruner.engine.distributed import average_buffers, barrier, is_main
from easypruner.errors import ConfigError
from easypruner.graph import prune
from easypruner.masks import Masks
from easypruner.toolkit.calibration import calibrate
from easypruner.toolkit.scores import Scores

if TYPE_CHECKING:
    from easypruner.contracts import Context
    from easypruner.graph import ChannelGraph

MEASURES = ('loss', 'accuracy')
"""What tells candidates apart: the training loss, or the accuracy on the validation data."""

RECORDS = 'candidates.jsonl'
"""The file, in the context's folder, of what was measured so far."""


@dataclass(frozen=True)
class Trial:
    """How a candidate is tried: really cut, batch norm adapted, then measured.

    Attributes:
        by: a name of :data:`MEASURES`.
        batches: of training data that the loss is a mean over.
        calibration_batches: of training data that batch norm is adapted on; 0 leaves it alone.
        asking: the name of the component, for messages.
    """

    by: str
    batches: int
    calibration_batches: int
    asking: str

    def __post_init__(self) -> None:
        check_name(self.by, 'by', self.asking, MEASURES)
        check_count(self.batches, 'batches', self.asking)
        check_count(self.calibration_batches, 'calibration_batches', self.asking, least=0)

    def fitness(self, graph: ChannelGraph, masks: Masks, context: Context) -> float:
        """Return the accuracy in percent, or the loss below zero: higher is better; NaN if it is.

        The model of ``graph`` is left as it was: a copy is cut.
        """
        quiet = replace(context, track=lambda items, total: items)
        model = copy.deepcopy(graph.model)
        prune(model, masks, graph=graph.on(model))
        model.eval()
        with same_chance(context.seed), torch.no_grad():
            if self.calibration_batches:
                batches = quiet.some_batches(self.calibration_batches, self.asking)
                calibrate(model, batches, context.needed('forward', self.asking))
                average_buffers(model)
            if self.by == 'accuracy':
                return float(context.needed('evaluate', self.asking)(model))
            return -self._loss(model, quiet)

    def _loss(self, model: nn.Module, context: Context) -> float:
        loss = context.needed('loss', self.asking)
        batches = context.some_batches(self.batches, self.asking)
        losses = torch.stack([loss(model, batch).detach().float() for batch in batches])
        mean = losses.mean()
        if dist.is_initialized():
            dist.all_reduce(mean)
            mean /= dist.get_world_size()
        return float(mean)


class Trials:
    """Tries candidates, each once: what was measured before a stop is not measured again.

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
        self._setting = _digest([repr(trial), context.seed, _weights(graph.model)])
        self._known = {} if self._path is None else _read(self._path, self._setting)
        # No process writes before all have read.
        barrier()

    def fitness(self, masks: Masks) -> float:
        """Return what masks are worth, higher = better; minus infinity where it is no number."""
        key = masks_digest(masks)
        if key not in self._known:
            found = self._trial.fitness(self._graph, masks, self._context)
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


@dataclass(frozen=True)
class Widths:
    """Which units go first in each group, so that a candidate is no more than how many go.

    Attributes:
        shares: group -> ``(units,)``: the share of the group that is gone with each unit and all
            that go before it, in 0..1.
        most: the share of a group that goes before units of others must, in 0..1.
    """

    shares: Mapping[str, Tensor]
    most: float = 1.0

    @classmethod
    def of(cls, scores: Mapping[str, Tensor], most: float = 1.0) -> Widths:
        """Order the units of each group by scores ``(units,)``, higher = keep."""
        shares = {}
        for name, score in scores.items():
            share = torch.empty(score.numel(), dtype=torch.float64)
            share[score.argsort(stable=True)] = torch.arange(1, score.numel() + 1).double()
            shares[name] = share / score.numel()
        return cls(shares, most)

    def scores(self, rates: Sequence[float]) -> Scores:
        """Return scores by which a budget removes shares of the groups in proportion to ``rates``.

        A unit that is gone with a share q of its group scores q / rate: at a threshold t the
        group loses t * rate. Beyond :attr:`most` units score higher than all others.

        Args:
            rates: of the groups, in order, above 0.
        """
        pairs = list(zip(self.shares.items(), rates, strict=True))
        lift = max((1.0 / rate for _, rate in pairs), default=0.0)
        return Scores(
            {
                name: share / rate + lift * (share > self.most + 1e-9)
                for (name, share), rate in pairs
            }
        )

    def draw(self, generator: torch.Generator) -> tuple[float, ...]:
        """Return a rate for each group, uniform above 0 and up to :attr:`most`."""
        drawn = 1 - torch.rand(len(self.shares), generator=generator, dtype=torch.float64)
        return tuple((drawn * self.most).tolist())

    @property
    def even(self) -> tuple[float, ...]:
        """The same rate for each group."""
        return (self.most,) * len(self.shares)


def check_most(value: Any, owner: str) -> float:
    """Return ``max_removed`` if it is a share above 0.

    Raises:
        ConfigError: it is not.
    """
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 < value <= 1:
        raise ConfigError(
            f'max_removed={value!r} of {owner} is not a share; expected a number above 0 and up '
            'to 1'
        )
    return float(value)


def masks_digest(masks: Masks) -> str:
    """Return a hash of masks."""
    return _digest([[name, mask.tolist()] for name, mask in sorted(masks.items())])


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def _weights(model: nn.Module) -> str:
    """Return a hash of a model's parameters and buffers."""
    digest = hashlib.sha256()
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        digest.update(f'{name} {tensor.dtype} {tuple(tensor.shape)}'.encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


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
        value = line['fitness']
        return str(line['masks']), -math.inf if value is None else float(value)
    except (ValueError, TypeError, KeyError):
        return None


def _ends_a_line(path: Path) -> bool:
    with path.open('rb') as file:
        file.seek(-1, 2)
        return file.read(1) == b'\n'
