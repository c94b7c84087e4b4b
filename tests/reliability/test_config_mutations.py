"""Configs with random mistakes: a run is planned or refused, and never fails in another way."""

from __future__ import annotations

import contextlib
import io
import os
import resource
import shutil
import signal
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from mmengine.config import Config

from easypruner.cli.main import main
from easypruner.pipeline.configs import shipped_configs
from tests.helpers.disturbed import cases, report
from tests.helpers.mutations import mutated, python_text
from tests.helpers.tiny import tiny_config

EXAMPLES = int(os.environ.get('EASYPRUNER_MUTATIONS', cases(40, 300)))
SECONDS = 30
"""The CPU time after which a plan counts as hanging."""
MEMORY = 4 * 2**30
"""The memory that a plan may take, in addition to that of the process before."""


class Hangs(BaseException):
    """A plan took too long."""


@contextlib.contextmanager
def bounded() -> Iterator[None]:
    """Limit the CPU time and the memory of a block."""

    def stop(*_: Any) -> None:
        raise Hangs

    pages = int(Path('/proc/self/statm').read_text().split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    before = signal.signal(signal.SIGPROF, stop)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, hard))
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def failure_of(config: Path, *arguments: str) -> str:
    """Plan or run a config; return how it failed other than with a message, or ''."""
    printed = io.StringIO()
    try:
        with bounded(), contextlib.redirect_stderr(printed), contextlib.redirect_stdout(printed):
            code = main(['prune', str(config), *arguments])
    except (Exception, Hangs, SystemExit):
        return traceback.format_exc()
    text = printed.getvalue()
    if code not in (0, 2):
        return f'exit code {code}'
    if code == 2 and text.count('easypruner: ') != 1:
        return f'no message: {text[-300:]}'
    return text[-2000:] if 'Traceback (most recent' in text else ''


def contents() -> dict[str, dict[str, Any]]:
    """Return name -> content of each config that is mutated. The tiny one is drawn more often."""
    found = {name: Config.fromfile(path).to_dict() for name, path in shipped_configs().items()}
    return {**{f'tiny {number}': full_config() for number in range(len(found))}, **found}


def full_config() -> dict[str, Any]:
    """Return a config with one epoch, and a value for most keys that a config can have."""
    stages = [
        dict(type='Train', name='push', epochs=1, row='baseline', ema=0.01,
             regularizer=dict(type='GlobalSparsity', strength=1e-3),
             optim_wrapper=dict(optimizer=dict(lr=0.05))),
        dict(type='SelectMask', source=dict(type='L1Norm', budget=dict(type='Ratio', keep=0.5))),
        dict(type='Prune', compensate='mean', batches=1),
        dict(type='Report'),
    ]  # fmt: skip
    return tiny_config(
        stages=stages,
        seed=3,
        randomness=dict(seed=3, deterministic=False),
        graph=dict(ignore=['head'], limits={'*': dict(min_units=1, max_removed=0.9)}),
        default_hooks=dict(logger=dict(type='LoggerHook', interval=10)),
        custom_hooks=[dict(type='EMAHook', momentum=0.1, priority='NORMAL')],
        env_cfg=dict(mp_cfg=dict(mp_start_method='fork'), resource_limit=2048),
        log_processor=dict(window_size=5),
        log_level='INFO',
        visualizer=dict(type='UniversalVisualizer', vis_backends=[dict(type='LocalVisBackend')]),
        custom_imports=dict(imports=['math'], allow_failed_imports=True),
    )


@pytest.mark.slow
def test_mutated_configs_are_planned_or_refused(tmp_path: Path) -> None:
    known = contents()

    def failure(random: Random) -> str:
        name = random.choice(list(known))
        done, content = mutated(random, known[name])
        return _named(f'{name}: {done}', failure_of(_written(tmp_path, content), '--plan'))

    _check(failure, EXAMPLES, 'mutated configs, planned')


@pytest.mark.slow
def test_mutated_configs_run_or_are_refused(tmp_path: Path) -> None:
    content = full_config()
    work_dir = tmp_path / 'run'

    def failure(random: Random) -> str:
        done, changed = mutated(random, content)
        shutil.rmtree(work_dir, ignore_errors=True)
        config = _written(tmp_path, _shortened(changed))
        return _named(f'tiny 0: {done}', failure_of(config, '--work-dir', str(work_dir)))

    _check(failure, EXAMPLES // 5, 'mutated configs, run')


def _shortened(value: Any) -> Any:
    """Return a config without long trainings: a run that takes hours is no mistake."""
    if isinstance(value, list):
        return [_shortened(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        key: min(item, 2)
        if key in ('epochs', 'max_epochs') and isinstance(item, int) and not isinstance(item, bool)
        else _shortened(item)
        for key, item in value.items()
    }


def _written(folder: Path, content: dict[str, Any]) -> Path:
    file = folder / 'mutated.py'
    file.write_text(python_text(content), encoding='utf-8')
    return file


def _named(what: str, failure: str) -> str:
    return f'{what}\n{failure}' if failure else ''


def _check(failure: Callable[[Random], str], examples: int, name: str) -> None:
    """Call a function with random generators, and show all the failures that it returns."""
    failures: list[str] = []

    # A random generator draws evenly. Hypothesis prefers the first values, and repeats itself.
    @settings(max_examples=examples, database=None, suppress_health_check=list(HealthCheck),
              phases=[Phase.generate])  # fmt: skip
    @given(st.randoms(use_true_random=True))
    def check(random: Random) -> None:
        failures.append(failure(random))

    check()
    found = [text for text in failures if text]
    heading = f'{len(found)} of {len(failures)} mutated configs failed without a message'
    assert not found, '\n\n'.join([heading, *found])
    report(name, len(failures), Counter({'planned or refused': len(failures) - len(found)}))
