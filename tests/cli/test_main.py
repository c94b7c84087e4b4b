"""The command line: quick help, errors without tracebacks."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest

import easypruner
from easypruner.cli.main import main
from easypruner.errors import EasyPrunerError, Interrupted
from tests.helpers.plugin_files import write_plugin

HEAVY = ('torch', 'mmengine', 'mmpretrain', 'numpy', 'matplotlib', 'rich')
COMMANDS = ('prune', 'analyze', 'compare', 'export', 'benchmark', 'plugins', 'study')
TOOLS = Path(__file__).parents[2] / 'tools'

REPORT_MODULES = """
import runpy, sys
try:
    if sys.argv[1:2] and sys.argv[1].endswith('.py'):
        runpy.run_path(sys.argv[1], run_name='__main__')
    else:
        from easypruner.cli.main import main
        main(sys.argv[1:])
except SystemExit as end:
    print('CODE', end.code)
print('HEAVY', *sorted({name.split('.')[0] for name in sys.modules} & set(%r)))
"""


def modules_of(*arguments: str) -> str:
    run = subprocess.run(
        [sys.executable, '-c', REPORT_MODULES % (HEAVY,), *arguments],
        capture_output=True,
        text=True,
        check=True,
    )
    return run.stdout


class TestHelp:
    @pytest.mark.parametrize('arguments', [(), *((command,) for command in COMMANDS)])
    def test_it_imports_nothing_heavy(self, arguments: tuple[str, ...]) -> None:
        output = modules_of(*arguments, '--help')
        assert output.startswith('usage: easypruner')
        assert output.endswith('CODE 0\nHEAVY\n')

    @pytest.mark.parametrize('command', COMMANDS)
    def test_tools_are_the_commands(self, command: str) -> None:
        output = modules_of(str(TOOLS / f'{command}.py'), '--help')
        assert output.startswith(f'usage: easypruner {command}')

    def test_every_tool_is_tested(self) -> None:
        assert {path.stem for path in TOOLS.glob('*.py')} == set(COMMANDS)

    def test_a_wrong_option_exits_with_2(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as raised:
            main(['plugins', '--jsn'])
        assert raised.value.code == 2
        error = capsys.readouterr().err
        assert "unrecognized arguments: --jsn; did you mean '--json'?" in error
        assert error.startswith('usage: easypruner plugins')

    def test_version(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit):
            main(['--version'])
        assert capsys.readouterr().out == f'{easypruner.__version__}\n'


class TestErrors:
    def test_an_unknown_config(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(['prune', 'nowhere.py']) == 2
        assert capsys.readouterr().err.startswith("easypruner: there is no config 'nowhere.py'")

    def test_a_folder_is_not_a_config(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(['prune', str(tmp_path)]) == 2
        assert 'is a folder' in capsys.readouterr().err

    @pytest.mark.parametrize('option', ['seed', '=3'])
    def test_a_malformed_option(
        self, option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        config = write_plugin(tmp_path, 'config.py', '')
        assert main(['prune', str(config), '--cfg-options', option]) == 2
        assert f'--cfg-options has {option!r}; expected KEY=VALUE' in capsys.readouterr().err

    @pytest.mark.parametrize(
        ('error', 'code', 'message'),
        [
            (EasyPrunerError('too much'), 2, 'easypruner: too much\n'),
            (
                KeyboardInterrupt(),
                130,
                'easypruner: interrupted; nothing is lost; start again: easypruner plugins\n',
            ),
            (
                Interrupted('--resume'),
                130,
                'easypruner: interrupted; continue with: easypruner plugins --resume\n',
            ),
            (
                OSError(errno.ENOSPC, 'No space left on device', 'a/b'),
                2,
                "easypruner: 'a/b': the disk is full; free some space\n",
            ),
        ],
    )
    def test_exit_codes(
        self,
        error: BaseException,
        code: int,
        message: str,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        def fail(*_: object, **__: object) -> None:
            raise error

        monkeypatch.delenv('LOCAL_RANK', raising=False)

        monkeypatch.setattr('easypruner.plugins.load_plugins', fail)
        assert main(['plugins']) == code
        assert capsys.readouterr().err == message

    def test_an_interrupt_under_torchrun(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def interrupt(*_: object, **__: object) -> None:
            raise Interrupted('--resume')

        monkeypatch.setenv('LOCAL_RANK', '0')
        monkeypatch.setattr('easypruner.plugins.load_plugins', interrupt)
        assert main(['plugins']) == 130
        assert 'the same command and --resume' in capsys.readouterr().err

    def test_verbose_shows_where_it_happened(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(['plugins', '--plugins', str(tmp_path / 'nowhere'), '-v']) == 2
        assert 'Traceback' in capsys.readouterr().err
