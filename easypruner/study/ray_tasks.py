"""Runs of a study as tasks of a Ray cluster."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from easypruner.errors import ConfigError
from easypruner.study.executors import Executor, Running, check_installed, thread_variables
from easypruner.study.job import execute


@dataclass
class _Task(Running):
    ray: Any
    reference: Any

    def outcome(self) -> str | None:
        done, _ = self.ray.wait([self.reference], timeout=0)
        if not done:
            return None
        try:
            return str(self.ray.get(self.reference))
        # Ray raises errors of many classes: of a lost machine, of the memory, of the task.
        except Exception as error:
            return f'its task failed: {type(error).__name__}: {error}'

    def stop(self) -> None:
        # A run ends when the process that started it does.
        with suppress(Exception):
            self.ray.cancel(self.reference, force=True)

    def wait(self) -> None:
        with suppress(Exception):
            self.ray.get(self.reference)


@dataclass
class RayExecutor(Executor):
    """Executes each run as a task of the cluster that ``RAY_ADDRESS`` names, or of a new local one.

    Attributes:
        jobs: the number of tasks at the same time.
        threads: the threads of each run, which are as many CPUs of the cluster.
        settings: other resources of a task, as ``ray.remote`` takes them, such as ``num_gpus``.
    """

    jobs: int
    threads: int
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_installed('ray')
        import ray

        self._ray = ray
        self._is_mine = not ray.is_initialized()
        if self._is_mine:
            ray.init(log_to_driver=False, include_dashboard=False)
        resources = {'num_cpus': self.threads, **self.settings}
        try:
            self._task = ray.remote(execute).options(**resources)
        except (TypeError, ValueError) as error:
            raise ConfigError(f'ray of the study file: {error}') from error

    def start(self, file: Path, name: str) -> Running:
        """Start a run on any machine of the cluster that has the resources."""
        return _Task(self._ray, self._task.remote(str(file), thread_variables(self.threads)))

    def close(self) -> None:
        """Leave the cluster; a local one ends."""
        if self._is_mine:
            self._ray.shutdown()
