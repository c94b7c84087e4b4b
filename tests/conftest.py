"""Settings of all tests."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from easypruner.base import lock

# As in the command line: waiting threads must not block the cores of working threads.
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')

# Every run draws the same examples, and a busy machine does not fail a test.
settings.register_profile('fixed', deadline=None, derandomize=True)
settings.load_profile('fixed')

_MOST_WORKERS = 4
"""The most processes that run the whole suite. Each needs about 2 GB of memory."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        '--one-case', action='store_true', help='run only the first case of parametrized tests'
    )
    parser.addoption(
        '--all-cases', action='append', default=[], metavar='FOLDER',
        help='a folder in which --one-case changes nothing',
    )  # fmt: skip


# Before the hook of pytest-xdist, which reads the options.
@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Run the whole suite in several processes if there are cores, unless options say otherwise.

    Named files run in this process: to start others would take longer than most of them do.
    """
    option = config.option
    whole = {config.rootpath, config.rootpath / 'tests'}
    named = {Path(config.invocation_params.dir, argument) for argument in config.args}
    inspected = option.usepdb or option.collectonly or option.capture == 'no'
    # Without pytest-xdist there is no such option; within its processes it does nothing.
    is_free = getattr(option, 'numprocesses', 0) is None and option.dist == 'no'
    if not is_free or inspected or hasattr(config, 'workerinput') or not named <= whole:
        return
    workers = min(_cores(), _MOST_WORKERS)
    if workers > 1:
        # Tests of a file share fixtures. Further threads would only wait for each other.
        option.numprocesses, option.dist = workers, 'loadfile'
        os.environ.setdefault('OMP_NUM_THREADS', '1')


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        return os.cpu_count() or 1


def pytest_itemcollected(item: pytest.Item) -> None:
    if item.get_closest_marker('in_ci'):
        item.add_marker('slow')


# After the marks have deselected slow cases.
@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption('one_case'):
        return
    whole = [config.rootpath / folder for folder in config.getoption('all_cases')]
    seen: set[str] = set()
    chosen, left_out = [], []
    for item in items:
        name = item.nodeid.partition('[')[0]
        repeated = name in seen and not any(item.path.is_relative_to(folder) for folder in whole)
        (left_out if repeated else chosen).append(item)
        seen.add(name)
    config.hook.pytest_deselected(items=left_out)
    items[:] = chosen


@pytest.fixture(autouse=True, scope='session')
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Measurements of the tests do not go into the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('EASYPRUNER_CACHE', str(tmp_path_factory.mktemp('cache')))
        yield


@pytest.fixture(autouse=True)
def seed() -> None:
    """Seed torch, so that random numbers of a test do not depend on earlier tests."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def brief() -> Iterator[None]:
    """Let reports of runs time networks in few passes, and export none on a slow machine."""
    # To import it here would take seconds in tests that need no run.
    times = sys.modules.get('easypruner.pipeline.stages.times')
    with pytest.MonkeyPatch.context() as patch:
        if times is not None:
            patch.setattr(times, '_PASSES', 5)
            patch.setattr(times, '_SMALL', math.inf)
        yield


@pytest.fixture(autouse=True)
def calm() -> Iterator[None]:
    """Let no lock that a test has left look for its folder, and interrupt a later test."""
    # Not the fixture monkeypatch, which would then be undone after the other fixtures.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lock, 'BEAT', 1e6)
        yield
