"""Where the runs of a study are executed: in processes on this machine."""

from __future__ import annotations

import importlib.util
import os
import subprocess
from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from easypruner.base.stopping import GRACE
from easypruner.errors import ConfigError
from easypruner.study.job import begin, problem_of

_PACKAGES = {'submitit': 'submitit', 'ray': 'ray'}
"""Executor -> the package that it needs."""
_THREAD_VARIABLES = ('OMP_NUM_THREADS', 'MKL_NUM_THREADS', 'OPENBLAS_NUM_THREADS')


class Running(ABC):
    """A run that was started."""

    @abstractmethod
    def outcome(self) -> str | None:
        """Return None while it runs; then why it failed, or '' if it did not."""

    @abstractmethod
    def stop(self) -> None:
        """Ask it to end."""

    def wait(self) -> None:  # noqa: B027
        """Wait until it has ended, or end it by force."""


class Executor(ABC):
    """A place where runs are executed.

    Attributes:
        jobs: the number of runs at the same time.
    """

    jobs: int

    @abstractmethod
    def start(self, file: Path, name: str) -> Running:
        """Start a run.

        Args:
            file: the file of the job; see :mod:`easypruner.study.job`.
            name: the name of the run.
        """

    def close(self) -> None:  # noqa: B027
        """Give back what the executor holds."""


def check_installed(name: str) -> None:
    """Raise ConfigError if the package of an executor is not installed."""
    if name in _PACKAGES and importlib.util.find_spec(_PACKAGES[name]) is None:
        raise ConfigError(
            f'--executor {name} needs {_PACKAGES[name]}: pip install "easypruner[{name}]"'
        )


@dataclass
class _Process(Running):
    file: Path
    process: subprocess.Popen[bytes]
    slot: int
    free: list[int]

    def outcome(self) -> str | None:
        code = self.process.poll()
        if code is None:
            return None
        if self.slot not in self.free:
            self.free.append(self.slot)
        return problem_of(self.file, code)

    def stop(self) -> None:
        with suppress(ProcessLookupError):
            self.process.terminate()

    def wait(self) -> None:
        try:
            self.process.wait(GRACE + 10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@dataclass
class LocalExecutor(Executor):
    """Executes runs in processes on this machine, which share its cores and GPUs.

    Attributes:
        jobs: the number of runs at the same time.
        threads: the threads of each.
        gpus: the GPUs, as CUDA_VISIBLE_DEVICES names them; run after run gets the next one.
    """

    jobs: int
    threads: int = 1
    gpus: tuple[str, ...] = ()
    _free: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._free = list(range(self.jobs))

    def start(self, file: Path, name: str) -> Running:
        """Start a run on the cores and the GPU of a free slot."""
        slot = self._free.pop(0)
        environment = thread_variables(self.threads)
        if self.gpus:
            environment['CUDA_VISIBLE_DEVICES'] = self.gpus[slot % len(self.gpus)]
        return _Process(file, begin(file, environment), slot, self._free)


def thread_variables(threads: int) -> dict[str, str]:
    """Return the environment variables that bound the threads of a process."""
    return dict.fromkeys(_THREAD_VARIABLES, str(threads))


def share_of_cores(jobs: int) -> int:
    """Return the number of threads of each of several processes on this machine."""
    known = hasattr(os, 'sched_getaffinity')
    cores = len(os.sched_getaffinity(0)) if known else os.cpu_count() or 1
    given = os.environ.get('OMP_NUM_THREADS', '')
    most = int(given) if given.isdecimal() and int(given) else cores
    return max(1, min(most, cores // jobs))


def visible_gpus() -> tuple[str, ...]:
    """Return the GPUs that this process may use."""
    import torch

    given = os.environ.get('CUDA_VISIBLE_DEVICES')
    if given is not None:
        return tuple(name for name in given.split(',') if name.strip())
    return tuple(map(str, range(torch.cuda.device_count())))
