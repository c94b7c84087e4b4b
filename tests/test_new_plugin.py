"""The command new-plugin: what it writes works as it stands."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import easypruner
from easypruner.cli import main
from easypruner.new_plugin import KINDS


def write(folder: Path, name: str, kind: str, *options: str) -> int:
    return main(['new-plugin', name, '--kind', kind, '--dir', str(folder), *options])


def test_each_kind_passes_its_own_test_unedited(tmp_path: Path) -> None:
    for kind in KINDS:
        assert write(tmp_path, f'own_{kind}', kind) == 0
        assert len((tmp_path / f'own_{kind}.py').read_text().splitlines()) <= 50
    command = [sys.executable, '-m', 'pytest', '-v', '-p', 'no:cacheprovider', str(tmp_path)]
    found = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert found.returncode == 0, found.stdout + found.stderr
    for kind in KINDS:
        assert re.search(rf'test_own_{kind}\.py::test_\w+ PASSED', found.stdout)


@pytest.mark.parametrize('kind', KINDS)
def test_it_is_listed(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert write(tmp_path, 'Own', kind) == 0
    written = capsys.readouterr().out
    assert 'pytest' in written and '--plugins' in written
    assert main(['plugins', '--plugins', str(tmp_path)]) == 0
    assert 'Own' in capsys.readouterr().out


def installed(tool: str) -> pytest.MarkDecorator:
    missing = importlib.util.find_spec(tool) is None
    return pytest.mark.skipif(missing, reason=f'{tool} is among the extras for developers')


@pytest.mark.parametrize(
    'command',
    [
        pytest.param(
            ['ruff', 'check', '--isolated', '--select', 'E4,E7,E9,F,I,B'], marks=installed('ruff')
        ),
        pytest.param(
            ['mypy', '--strict', '--follow-imports=silent', '--ignore-missing-imports'],
            marks=[installed('mypy'), pytest.mark.slow],
        ),
    ],
    ids=lambda command: command[0],
)
def test_it_is_clean(command: list[str], tmp_path: Path) -> None:
    for kind in KINDS:
        write(tmp_path, f'own_{kind}', kind)
    found = subprocess.run(
        [sys.executable, '-m', *command, '.'],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        # The way an editable install leads to the package is none that type checkers go.
        env={**os.environ, 'MYPYPATH': str(Path(easypruner.__file__).parents[1])},
        check=False,
    )
    assert found.returncode == 0, found.stdout + found.stderr


@pytest.mark.parametrize('name', ['', '3d', 'class', 'My Source', 'a.b', '../evil', 'größe'])
def test_a_name_that_cannot_be_one(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = write(tmp_path, name, 'source')
    if name == 'class':  # the class is called Class, which is allowed
        assert code == 0
        return
    assert code == 2
    assert 'cannot be the name of a plugin' in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_name_that_is_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert write(tmp_path, 'BNScale', 'source') == 2
    assert "there is a mask source 'BNScale' already" in capsys.readouterr().err


def test_nothing_is_overwritten_unasked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert write(tmp_path, 'Own', 'stage') == 0
    (tmp_path / 'own.py').write_text('mine')
    assert write(tmp_path, 'Own', 'stage') == 2
    assert '--overwrite' in capsys.readouterr().err
    assert (tmp_path / 'own.py').read_text() == 'mine'
    assert write(tmp_path, 'Own', 'stage', '--overwrite') == 0
    assert (tmp_path / 'own.py').read_text() != 'mine'


def test_an_unknown_kind_is_told() -> None:
    with pytest.raises(SystemExit) as ended:
        main(['new-plugin', 'Own', '--kind', 'sauce'])
    assert ended.value.code == 2
