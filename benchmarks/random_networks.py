"""Prunes random networks with heads, experts, side outputs and modules that a forward changes.

python benchmarks/random_networks.py --seeds 2000

The networks are those of the tests, drawn by hypothesis. Each is traced with random options; random
units go, and the pruned network is compared with the full one in double precision. The results are
written as JSON, from which benchmarks/coverage.py makes a section of docs/coverage.md.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from hypothesis import HealthCheck, Phase, given, seed, settings

import easypruner
from easypruner.graph import ChannelGraph, Limits, Masks
from easypruner.strategies.budgets.ranking import keep_best

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.helpers.random_networks import Task, tasks  # noqa: E402

_LIMIT = 120
_SLOWEST = 5


@dataclass
class Outcome:
    """What became of one network.

    Attributes:
        network: its description, and how it was pruned.
        steps: what worked: 'traced', 'cut', 'verified'.
        groups: the number of its groups.
        seconds: the CPU seconds of its trace.
        error: what went wrong; '' if nothing did.
    """

    network: str
    steps: list[str]
    groups: int = 0
    seconds: float = 0.0
    error: str = ''


def main() -> None:
    """Prune the networks, print what was found, and write it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--seeds', type=int, default=200, help='the number of networks')
    parser.add_argument('--first', type=int, default=0, help='the seed of the drawing')
    default = ROOT / 'work_dirs' / 'coverage' / 'random_networks.json'
    parser.add_argument('--out', type=Path, default=default)
    args = parser.parse_args()
    warnings.filterwarnings('ignore')
    torch.set_num_threads(1)
    outcomes = draw(args.seeds, args.first)
    found = summary(outcomes)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(found, indent=1), encoding='utf-8')
    print(json.dumps(found, indent=1))
    sys.exit(bool(found['wrong']))


def draw(count: int, first: int = 0) -> list[Outcome]:
    """Draw networks and prune them; print each that fails."""
    outcomes: list[Outcome] = []

    @seed(first)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    @given(tasks())
    def run(task: Task) -> None:
        outcome = prune(task)
        outcomes.append(outcome)
        if outcome.error:
            print(f'{outcome.network}: {outcome.error}', flush=True)

    run()
    return outcomes


def prune(task: Task) -> Outcome:
    """Trace, cut and verify a network. Any exception is a part of the outcome."""
    outcome = Outcome(str(task), [])
    try:
        with _limited(_LIMIT):
            _prune(task, outcome)
    except Exception as error:  # whatever happens to one network is a result
        outcome.error = f'{type(error).__name__}: {" ".join(str(error).split())[:300]}'
    return outcome


def _prune(task: Task, outcome: Outcome) -> None:
    model, inputs = task.description.build(), task.description.example_inputs()
    options: dict[str, Any] = dict(task.options)
    start = time.process_time()
    graph = easypruner.trace(model, inputs, **options)
    outcome.seconds = time.process_time() - start
    outcome.groups = len(graph.groups)
    outcome.steps.append('traced')
    masks = random_masks(graph, task.seed)
    checked = easypruner.verify(model, masks, inputs, graph=graph)
    if checked.failed:  # where only a side output loses channels, the others are constant
        raise AssertionError(f'the pruned network differs by {checked.error:.1e}')
    outcome.steps.append('verified')
    predicted = graph.cost(masks)
    easypruner.prune(model, masks, graph=graph)
    model(*inputs)
    params = sum(parameter.numel() for parameter in model.parameters())
    if params != predicted.params:
        raise AssertionError(f'{params} parameters are left, predicted were {predicted.params}')
    outcome.steps.append('cut')


def random_masks(graph: ChannelGraph, number: int) -> Masks:
    """Return masks that keep a random number of random units of each group, within its limits."""
    generator = torch.Generator().manual_seed(number)
    masks = {}
    for name, group in graph.groups.items():
        scores = torch.rand(group.size, generator=generator)
        keep = int(torch.randint(1, group.size + 1, (), generator=generator))
        masks[name] = keep_best(scores, keep, graph.limits.get(name, Limits()))
    return Masks(masks)


@contextlib.contextmanager
def _limited(seconds: int) -> Iterator[None]:
    """Raise a TimeoutError in the block after some seconds."""

    def stop(*_: object) -> None:
        raise TimeoutError(f'not done after {seconds} s')

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def summary(outcomes: list[Outcome]) -> dict[str, Any]:
    """Return the figures of the page."""
    slowest = sorted(outcomes, key=lambda outcome: -outcome.seconds)[:_SLOWEST]
    return {
        'networks': len(outcomes),
        **{
            step: sum(step in outcome.steps for outcome in outcomes)
            for step in ('traced', 'verified', 'cut')
        },
        'groups': sum(outcome.groups for outcome in outcomes),
        'seconds': sum(outcome.seconds for outcome in outcomes),
        'wrong': [asdict(outcome) for outcome in outcomes if outcome.error],
        'slowest': [asdict(outcome) for outcome in slowest],
    }


if __name__ == '__main__':
    main()
