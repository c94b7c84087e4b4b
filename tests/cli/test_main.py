"""The command line: quick help, listed plugins, errors without tracebacks."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import easypruner
from easypruner.cli.main import main
from easypruner.errors import EasyPrunerError
from easypruner.plugins import load_plugins
from tests.helpers.plugin_files import write_plugin, write_source

HEAVY = ('torch', 'mmengine', 'mmpretrain', 'numpy', 'matplotlib', 'rich')
COMMANDS = ('prune', 'analyze', 'compare', 'plugins')
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
        assert '--jsn' in capsys.readouterr().err

    def test_version(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit):
            main(['--version'])
        assert capsys.readouterr().out == f'{easypruner.__version__}\n'


class TestPlugins:
    def test_the_table_has_a_row_for_every_component(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        file = write_source(tmp_path, 'Tabled')
        assert main(['plugins', '--plugins', str(tmp_path)]) == 0
        lines = capsys.readouterr().out.splitlines()
        for component in load_plugins([tmp_path]).components:
            head = re.compile(rf' *{component.kind} +{component.name} ')
            (line,) = [line for line in lines if head.match(line)]
            assert component.summary in line
            assert component.plugin.version in line
            assert component.plugin.origin in line
        assert any(str(file) in line and 'Scores units by their place.' in line for line in lines)

    def test_json(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        file = write_source(tmp_path, 'Listed')
        write_plugin(tmp_path, 'broken.py', '1 / 0')
        arguments = ['plugins', '--json', '--plugins', str(tmp_path), '--skip-broken-plugins']
        assert main(arguments) == 0
        listing = json.loads(capsys.readouterr().out)
        (entry,) = [c for c in listing['components'] if c['name'] == 'Listed']
        assert entry == {
            'kind': 'mask source',
            'name': 'Listed',
            'summary': 'Scores units by their place.',
            'plugin': 'listed',
            'version': '',
            'origin': str(file),
            'file': str(file),
        }
        assert [p['name'] for p in listing['skipped']] == ['broken']
        assert 'macs' in {p['name'] for p in listing['plugins']}

    def test_several_folders_and_disabled_plugins(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        write_source(tmp_path / 'a', 'InA')
        write_source(tmp_path / 'b', 'InB')
        folders = ['--plugins', str(tmp_path / 'a'), '--plugins', str(tmp_path / 'b')]
        main(['plugins', '--json', *folders, '--disable-plugin', 'ina', '--disable-plugin', 'macs'])
        found = {c['name'] for c in json.loads(capsys.readouterr().out)['components']}
        assert 'InB' in found
        assert not {'InA', 'Macs'} & found

    def test_other_hooks_and_skipped_plugins_are_listed(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        hook = 'def easypruner_report(runs): return []'
        write_plugin(tmp_path, 'hooked.py', f'from easypruner import hookimpl\n@hookimpl\n{hook}\n')
        write_plugin(tmp_path, 'broken.py', '1 / 0')
        assert main(['plugins', '--plugins', str(tmp_path), '--skip-broken-plugins']) == 0
        output = capsys.readouterr().out
        assert f"easypruner_report: plugin 'hooked', {tmp_path / 'hooked.py'}" in output
        assert 'ZeroDivisionError' in output

    def test_a_broken_plugin_is_one_message_and_2(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        file = write_plugin(tmp_path, 'broken.py', '1 / 0')
        assert main(['plugins', '--plugins', str(tmp_path)]) == 2
        output = capsys.readouterr()
        assert output.out == ''
        assert output.err.startswith(f"easypruner: plugin 'broken', {file}, cannot be imported")
        assert 'Traceback' not in output.err


class TestErrors:
    def test_an_unknown_config(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(['prune', 'nowhere.py']) == 2
        assert capsys.readouterr().err.startswith("easypruner: there is no config 'nowhere.py'")

    def test_a_folder_is_no_config(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(['prune', str(tmp_path)]) == 2
        assert 'is a folder' in capsys.readouterr().err

    @pytest.mark.parametrize('option', ['seed', '=3'])
    def test_an_option_that_sets_nothing(
        self, option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        config = write_plugin(tmp_path, 'config.py', '')
        assert main(['prune', str(config), '--cfg-options', option]) == 2
        assert f'{option!r} is not understood; expected KEY=VALUE' in capsys.readouterr().err

    @pytest.mark.parametrize(
        ('error', 'code', 'message'),
        [
            (EasyPrunerError('too much'), 2, 'easypruner: too much\n'),
            (KeyboardInterrupt(), 130, 'easypruner: interrupted\n'),
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

        monkeypatch.setattr('easypruner.plugins.load_plugins', fail)
        assert main(['plugins']) == code
        assert capsys.readouterr().err == message

    def test_verbose_shows_where_it_happened(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(['plugins', '--plugins', str(tmp_path / 'nowhere'), '-v']) == 2
        assert 'Traceback' in capsys.readouterr().err
