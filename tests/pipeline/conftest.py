"""A finished run, which the tests in this folder read."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.tiny import prune, write_config


@pytest.fixture(scope='session')
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The work directory of a whole run of tests.helpers.tiny; not to be changed."""
    folder = tmp_path_factory.mktemp('finished')
    assert prune(write_config(folder), folder / 'run') == 0
    return folder / 'run'
