"""A plugin that is a package of its own: installed by pip, found, listed, and turned off."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.plugin_files import write_source

SETUP = """
from setuptools import setup

setup(
    name='reader-norm-plugin',
    version='3.1.4',
    py_modules=['reader_norm_plugin'],
    entry_points={'easypruner': ['reader_norm = reader_norm_plugin']},
)
"""


@pytest.fixture(scope='module')
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder into which pip has installed the package."""
    folder = tmp_path_factory.mktemp('package')
    write_source(folder, 'PackagedSource', 'reader_norm_plugin.py')
    (folder / 'setup.py').write_text(SETUP)
    target = folder / 'site'
    command = [sys.executable, '-m', 'pip', 'install', '--quiet', '--no-index', '--no-deps']
    command += ['--no-build-isolation', '--target', str(target), str(folder)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return target


def listed(site: Path, *options: str, disabled: str = '') -> list[dict[str, Any]]:
    """Return what a new process lists of the package."""
    environment = {**os.environ, 'PYTHONPATH': str(site), 'EASYPRUNER_DISABLE_PLUGINS': disabled}
    found = subprocess.run(
        [sys.executable, '-m', 'easypruner.cli', 'plugins', '--json', *options],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    return [
        entry
        for entry in json.loads(found.stdout)['components']
        if entry['name'] == 'PackagedSource'
    ]


def test_it_is_found_and_listed_with_its_version(site: Path) -> None:
    (entry,) = listed(site)
    assert entry['version'] == '3.1.4'
    assert entry['plugin'] == 'reader_norm'
    assert 'reader_norm_plugin' in entry['origin']
    assert 'reader-norm-plugin' in entry['origin']


def test_it_is_turned_off(site: Path) -> None:
    assert not listed(site, '--disable-plugin', 'reader_norm')
    assert not listed(site, disabled='reader_norm')
