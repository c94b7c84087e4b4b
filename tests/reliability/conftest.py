"""What the tests of reliability share: a process to fork, and an undisturbed run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.disturbed import results
from tests.helpers.tiny import write_config
from tests.helpers.zygote import Outcome, Zygote


@dataclass(frozen=True)
class Whole:
    """An undisturbed run.

    Attributes:
        config: its config.
        folder: its work directory.
        results: what it found.
        changes: the number of changes of its folder.
    """

    config: Path
    folder: Path
    results: dict[str, Any]
    changes: int


@pytest.fixture(scope='session')
def zygote() -> Iterator[Zygote]:
    process = Zygote()
    yield process
    process.close()


@pytest.fixture(scope='session')
def whole(zygote: Zygote, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    folder = tmp_path_factory.mktemp('whole')
    config = write_config(folder)
    run = folder / 'run'
    outcome = zygote.run(['prune', config, '--work-dir', run], run)
    assert outcome.code == 0, outcome.output
    return Whole(config, run, results(run), outcome.changes)


def continued(zygote: Zygote, whole: Whole, run: Path) -> Outcome:
    """Continue a disturbed run, or start it if it had not begun."""
    command = ['prune', whole.config, '--work-dir', run]
    outcome = zygote.run([*command, '--resume'], run)
    if outcome.code == 2 and 'no run to resume' in outcome.output:
        outcome = zygote.run(command, run)
    return outcome
