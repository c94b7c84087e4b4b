"""The command that lists plugins."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from easypruner.cli.main import main
from easypruner.plugins import load_plugins
from tests.helpers.plugin_files import write_plugin, write_source


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
        assert any(str(file) in line and 'Scores units by their index.' in line for line in lines)

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
            'summary': 'Scores units by their index.',
            'plugin': 'listed',
            'version': '',
            'origin': str(file),
            'file': str(file),
        }
        assert [p['name'] for p in listing['skipped']] == ['broken']
        assert 'macs' in {p['name'] for p in listing['plugins']}

    def test_what_runtimes_lack_is_listed(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(['new-plugin', 'Lacking', '--kind', 'runtime', '--dir', str(tmp_path)]) == 0
        file = tmp_path / 'lacking.py'
        file.write_text(file.read_text().replace("{'torch': 'torch'}", "{'no_such_module': 'nsm'}"))
        capsys.readouterr()
        assert main(['plugins', '--plugins', str(tmp_path)]) == 0
        output = capsys.readouterr().out
        assert 'Lacking: nsm: pip install nsm' in output.partition('Not installed')[2]
        main(['plugins', '--json', '--plugins', str(tmp_path)])
        found = {c['name']: c for c in json.loads(capsys.readouterr().out)['components']}
        assert found['Lacking']['missing'] == ['nsm'] and found['TorchEager']['missing'] == []
        assert 'missing' not in found['Macs']

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
