"""The public names of ``import easypruner``."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import easypruner


@pytest.mark.parametrize('name', easypruner.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(easypruner, name) is not None
    assert name in dir(easypruner)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'easypruner' has no attribute 'purne'"):
        _ = easypruner.purne


def test_importing_it_imports_nothing_heavy() -> None:
    code = "import easypruner, sys; print({'torch', 'numpy', 'mmengine'} & set(sys.modules))"
    run = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert run.stdout == 'set()\n'


def test_types_and_names_at_run_time_agree() -> None:
    """Type checkers see the names that __getattr__ returns."""
    source = Path(easypruner.__file__).read_text(encoding='utf-8')
    typed = source.split('if TYPE_CHECKING:')[1].split('__version__')[0]
    for names, single in re.findall(r'import (?:\(([^)]*)\)|([\w, ]+))', typed):
        for name in (names or single).replace('\n', ' ').split(','):
            if name.strip():
                assert name.strip() in easypruner.__all__


def test_the_version_is_the_distribution_s() -> None:
    assert version('easypruner') == easypruner.__version__
