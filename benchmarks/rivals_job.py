"""A run of benchmarks/rivals.py, in a process of its own: python rivals_job.py JSON FOLDER."""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from grid_network import Data, evaluate, load, mnist, save
from rivals_methods import METHODS, Run
from rivals_train import BATCH, Network, train, with_validation

import easypruner
from easypruner.runtimes.memory import peak_memory

_CALIBRATION = 20


@dataclass(frozen=True)
class Setting:
    """What is the same in all runs.

    Attributes:
        width: the channels of the network's first stage.
        epochs: of the baseline.
        push_epochs: of the training before the cut, for methods that push.
        finetune_epochs: of the training after the cut. Methods that do not push have those of the
            push as well.
        lr: the learning rate of the baseline and of the push, at their start.
        images: the largest number of images to train on.
        validation: how many of these are for tuning.
    """

    width: int = 8
    epochs: int = 20
    push_epochs: int = 12
    finetune_epochs: int = 12
    lr: float = 0.1
    images: int = 4000
    validation: int = 1000


QUICK = Setting(epochs=4, push_epochs=2, finetune_epochs=2, images=1000, validation=250)
SHRUNK = Setting(epochs=1, push_epochs=1, finetune_epochs=1, images=192, validation=64)


@dataclass(frozen=True)
class Job:
    """A cut of a trained network, or the training of a baseline.

    Attributes:
        method: the name of the method; ``baseline`` to train the network.
        seed: the seed.
        keep: the share of MACs that is left.
        factor: multiplies the strength.
        lr: the learning rate of the fine-tuning at its start.
        validation: whether to train on fewer images, and to test on the others of these.
    """

    method: str
    seed: int
    keep: float = 1.0
    factor: float = 1.0
    lr: float = 0.1
    validation: bool = False

    @property
    def name(self) -> str:
        """A name that no other job of tuned methods has."""
        return f'{self.method} | {self.keep:g} | {self.seed}'

    @property
    def trial_name(self) -> str:
        """A name that no other trial has."""
        return f'{self.name} | {self.factor:g} | {self.lr:g}'

    @property
    def baseline(self) -> Job:
        """The job that trains the network."""
        kind = 'baseline for tuning' if self.validation else 'baseline'
        return Job(kind, self.seed, validation=self.validation)


def execute(job: Job, setting: Setting, folder: Path) -> dict[str, Any]:
    """Run a job, and return its results.

    Args:
        job: the job.
        setting: what is the same in all jobs.
        folder: has the weights of the baselines, or gets them.
    """
    torch.manual_seed(job.seed)
    data = mnist(setting.images)
    if job.validation:
        data = with_validation(data, setting.validation)
    network = Network(setting.width)
    file = folder / f'{job.baseline.method.replace(" ", "_")}_{job.seed}.safetensors'
    if job.method == job.baseline.method:
        start = time.process_time()
        train(network, data, setting.epochs, job.seed, setting.lr)
        save(network, file)  # type: ignore[arg-type]
        return {**_tested(network, data), 'seconds': time.process_time() - start}
    load(network, file)  # type: ignore[arg-type]
    return _pruned(job, setting, network, data)


def _pruned(job: Job, setting: Setting, network: Network, data: Data) -> dict[str, Any]:
    method, push_epochs = METHODS[job.method], setting.push_epochs
    whole = easypruner.trace(network, data.example).cost()
    run = Run(network, data, job.keep, job.seed, push_epochs, setting.lr, job.factor)
    pruning = _Cost.of(lambda: method.prune(run))
    left = easypruner.trace(network, data.example).cost()
    cut = _tested(network, data)['accuracy']
    easypruner.calibrate(network, list(data.images[: _CALIBRATION * BATCH].split(BATCH)))
    calibrated = _tested(network, data)['accuracy']
    epochs = setting.finetune_epochs + (0 if method.pushes else push_epochs)
    tuning = _Cost.of(lambda: train(network, data, epochs, job.seed, job.lr))
    finetuned = _tested(network, data)
    return {
        'macs': left.macs / whole.macs,
        'params': left.params / whole.params,
        'cut': cut,
        'calibrated': calibrated,
        'finetuned': finetuned['accuracy'],
        'loss': finetuned['loss'],
        'prune_seconds': pruning.seconds,
        'seconds': pruning.seconds + tuning.seconds,
        'peak': max(pruning.memory, tuning.memory),
        'narrowest': min(m.out_channels for m in network.modules() if hasattr(m, 'out_channels')),
    }


@dataclass(frozen=True)
class _Cost:
    """What a function takes.

    Attributes:
        seconds: the CPU time.
        memory: the bytes by which it raises the memory of the process, at its peak.
    """

    seconds: float
    memory: int

    @classmethod
    def of(cls, run: Callable[[], object]) -> _Cost:
        """Run a function, and return what it takes."""
        start = time.process_time()
        memory = peak_memory(run)
        return cls(time.process_time() - start, memory or 0)


def _tested(network: torch.nn.Module, data: Data) -> dict[str, float]:
    return evaluate(network.eval(), data)  # type: ignore[arg-type]


if __name__ == '__main__':
    warnings.simplefilter('ignore')
    torch.set_num_threads(1)
    given = json.loads(sys.argv[1])
    found = execute(Job(**given['job']), Setting(**given['setting']), Path(sys.argv[2]))
    print(json.dumps(found))
