"""The command new-plugin: the files that it writes work without an edit."""

from __future__ import annotations

import importlib.util
import keyword
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import easypruner
from easypruner.cli.main import main
from easypruner.cli.new_plugin import KINDS
from tests.helpers.forked import run_copy


def write(folder: Path, name: str, kind: str, *options: str) -> int:
    return main(['new-plugin', name, '--kind', kind, '--dir', str(folder), *options])


@pytest.mark.slow
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
        # With the settings of the project; other line widths and quotes are possible.
        pytest.param(
            [
                *('ruff', 'format', '--check', '--isolated', '--line-length', '100'),
                *('--config', 'format.quote-style="single"'),
            ],
            marks=installed('ruff'),
        ),
        pytest.param(
            ['mypy', '--strict', '--follow-imports=silent', '--ignore-missing-imports'],
            marks=[installed('mypy'), pytest.mark.slow],
        ),
    ],
    ids=['ruff', 'ruff format', 'mypy'],
)
def test_it_is_clean(command: list[str], tmp_path: Path) -> None:
    for kind in KINDS:
        write(tmp_path, f'own_{kind}', kind)
        write(tmp_path, f'a_really_rather_long_name_for_a_{kind}', kind)
    found = subprocess.run(
        [sys.executable, '-m', *command, '.'],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        # Type checkers do not follow the import hook of an editable install.
        env={**os.environ, 'MYPYPATH': str(Path(easypruner.__file__).parents[1])},
        check=False,
    )
    assert found.returncode == 0, found.stdout + found.stderr


def refused(folder: Path, name: str, kind: str, capsys: pytest.CaptureFixture[str]) -> str:
    """Return the message that refuses a name."""
    assert write(folder, name, kind) == 2
    assert not list(folder.iterdir())
    return capsys.readouterr().err


@pytest.mark.parametrize('name', ['', '__', '3d', 'none', 'My Source', 'a.b', '../evil', 'größe'])
def test_an_invalid_name(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert 'cannot be the name of a plugin' in refused(tmp_path, name, 'source', capsys)


@pytest.mark.parametrize(
    ('name', 'kind'),
    [
        ('Tensor', 'source'),
        ('Masks', 'budget'),
        ('Regularizer', 'regularizer'),
        ('PruningState', 'stage'),
        ('LAYER', 'handler'),
        ('KeyError', 'handler'),
    ],
)
def test_a_name_that_means_something_else(
    name: str, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert f'{name!r} has another meaning' in refused(tmp_path, name, kind, capsys)


@pytest.mark.parametrize(
    'name', ['class', 'Torch', 'random', 'turtle', 'torchvision', 'Pytest', 'easypruner_plugins']
)
def test_a_file_that_python_would_mistake(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert f'would be {name.lower()}.py' in refused(tmp_path, name, 'budget', capsys)
    assert keyword.iskeyword(name) or importlib.util.find_spec(name.lower())


def test_names_are_found_without_an_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / 'site').mkdir()
    (tmp_path / 'site' / 'looked_up.py').write_text('raise SystemExit("imported")')
    (tmp_path / 'site' / 'only_a_folder').mkdir()
    (tmp_path / 'mine').mkdir()
    monkeypatch.syspath_prepend(tmp_path / 'site')
    assert 'would be looked_up.py' in refused(tmp_path / 'mine', 'LookedUp', 'source', capsys)
    assert write(tmp_path / 'mine', 'OnlyAFolder', 'source') == 0
    # A plugin that replaces itself does not hide another module.
    assert write(tmp_path / 'site', 'LookedUp', 'source', '--overwrite') == 0


@pytest.mark.parametrize('name', ['BNScale', 'bn_scale', 'bnscale'])
def test_a_class_that_is_taken(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = refused(tmp_path, name, 'source', capsys)
    assert "there is a mask source 'BNScale' already" in message


def test_a_plugin_that_is_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # --disable-plugin would disable both plugins of the same name.
    message = refused(tmp_path, 'RandomSource', 'source', capsys)
    assert "there is a plugin 'random_source' already, built in" in message


def test_a_disabled_plugin_is_taken_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv('EASYPRUNER_DISABLE_PLUGINS', 'random_source')
    assert "there is a plugin 'random_source' already, built in" in (
        refused(tmp_path, 'RandomSource', 'source', capsys)
    )


def test_an_invalid_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / 'file').touch()
    assert write(tmp_path / 'file', 'Own', 'source') == 2
    assert 'cannot be written' in capsys.readouterr().err


def test_a_name_that_is_too_long_for_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert 'cannot be written: File name too long; choose' in (
        refused(tmp_path, 'Long' * 75, 'source', capsys)
    )


def test_a_folder_that_may_not_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def exists(path: Path) -> bool:
        raise PermissionError(13, 'Permission denied', str(path))

    with monkeypatch.context() as patched:
        # The superuser can read every folder.
        patched.setattr(Path, 'exists', exists)
        code = write(tmp_path / 'locked', 'Own', 'source')
    assert code == 2
    assert "own.py' cannot be written: Permission denied; choose" in capsys.readouterr().err


@pytest.mark.parametrize('overwrite', [False, True])
def test_both_files_are_written_or_neither(
    overwrite: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / 'tests').touch()
    if overwrite:
        (tmp_path / 'own.py').write_text('mine')
    assert write(tmp_path, 'Own', 'source', *['--overwrite'] * overwrite) == 2
    assert "test_own.py' cannot be written" in capsys.readouterr().err
    assert (tmp_path / 'own.py').exists() == overwrite
    if overwrite:
        assert (tmp_path / 'own.py').read_text() == 'mine'
    (tmp_path / 'tests').unlink()
    assert write(tmp_path, 'Own', 'source', *['--overwrite'] * overwrite) == 0
    assert (tmp_path / 'tests' / 'test_own.py').exists()


@pytest.mark.slow
def test_a_name_of_another_kind_passes_its_own_test(tmp_path: Path) -> None:
    assert write(tmp_path, 'Train', 'source') == 0
    command = [sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', str(tmp_path)]
    found = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert found.returncode == 0, found.stdout + found.stderr


def test_an_emptied_handler_fails_its_own_test(tmp_path: Path) -> None:
    assert write(tmp_path, 'Own', 'handler') == 0
    text = (tmp_path / 'own.py').read_text()
    (tmp_path / 'own.py').write_text(
        text.replace('            layer.channels =', '            _ =')
    )
    command = ['-q', '-p', 'no:cacheprovider', f'--basetemp={tmp_path / "base"}', str(tmp_path)]
    code, printed = run_copy(lambda: sys.exit(pytest.main(command)), tmp_path)
    assert code == 1
    assert "Own leaves channels=8 in '1', a OwnLayer; expected" in printed


def test_the_suggested_commands_can_be_pasted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / 'my plugins'
    assert write(folder, 'Own', 'source') == 0
    written = capsys.readouterr().out
    (test,) = (line.split(':', 1)[1] for line in written.splitlines() if 'run the test' in line)
    assert shlex.split(test) == ['pytest', str(folder / 'tests' / 'test_own.py')]


def test_help_needs_nothing_heavy() -> None:
    code = (
        'import sys; from easypruner.cli.main import main\n'
        'try: main(["new-plugin", "--help"])\n'
        'except SystemExit: print({"torch", "mmengine", "numpy"} & set(sys.modules))'
    )
    found = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert found.stdout.startswith('usage: easypruner new-plugin')
    assert found.stdout.endswith('set()\n')


def test_nothing_is_overwritten_without_the_option(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert write(tmp_path, 'Own', 'stage') == 0
    (tmp_path / 'own.py').write_text('mine')
    assert write(tmp_path, 'Own', 'stage') == 2
    assert '--overwrite' in capsys.readouterr().err
    assert (tmp_path / 'own.py').read_text() == 'mine'
    assert write(tmp_path, 'Own', 'stage', '--overwrite') == 0
    assert (tmp_path / 'own.py').read_text() != 'mine'


def test_an_unknown_kind_is_reported() -> None:
    with pytest.raises(SystemExit) as ended:
        main(['new-plugin', 'Own', '--kind', 'sauce'])
    assert ended.value.code == 2
