"""Runs of a study as jobs of submitit: on Slurm, or in its local processes without Slurm."""

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
class _Job(Running):
    job: Any

    def outcome(self) -> str | None:
        if not self.job.done():
            return None
        error = self.job.exception()
        if error is None:
            return str(self.job.result())
        return f'its job {self.job.job_id} failed: {error}; see {str(self.job.paths.stderr)!r}'

    def stop(self) -> None:
        self.job.cancel()

    def wait(self) -> None:
        # The job was cancelled, which submitit reports as an error.
        with suppress(Exception):
            self.job.wait()


@dataclass
class SubmititExecutor(Executor):
    """Submits each run as a job.

    Attributes:
        jobs: the number of jobs at the same time.
        folder: the folder of submitit's files, on a disk that all machines share.
        threads: the threads of each run.
        settings: the parameters of the jobs, as ``submitit.AutoExecutor.update_parameters`` takes
            them, such as ``slurm_partition``.
    """

    jobs: int
    folder: Path
    threads: int
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_installed('submitit')
        import submitit

        self._executor = submitit.AutoExecutor(folder=self.folder)
        parameters = {'timeout_min': 24 * 60, 'cpus_per_task': self.threads, **self.settings}
        try:
            self._executor.update_parameters(**parameters)
        except (NameError, TypeError, AssertionError) as error:
            raise ConfigError(f'submitit of the study file: {error}') from error

    def start(self, file: Path, name: str) -> Running:
        """Submit a run."""
        return _Job(self._executor.submit(execute, str(file), thread_variables(self.threads)))
