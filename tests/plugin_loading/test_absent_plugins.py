"""Plugins that are disabled or skipped, and messages about their components."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

import easypruner
from easypruner.cli.main import main
from easypruner.errors import ConfigError, PluginError
from easypruner.plugins import load_plugins
from easypruner.plugins.registry import LAYER_HANDLERS, MASK_SOURCES, REGISTRIES, build
from tests.helpers.plugin_files import write_distribution, write_plugin, write_source
from tests.helpers.tiny import prune, tiny_config, write_config


@pytest.fixture(autouse=True)
def afterwards() -> Iterator[None]:
    """Load the usual plugins again."""
    yield
    load_plugins()


def unknown(name: str) -> str:
    """Return the message about an unknown mask source."""
    with pytest.raises(ConfigError) as raised:
        build(MASK_SOURCES, {'type': name})
    return str(raised.value)


class TestUnknownNames:
    def test_a_disabled_plugin_has_it(self) -> None:
        load_plugins(disable=['lp_norm'])
        assert unknown('L1Norm') == (
            "unknown mask source 'L1Norm'; plugin 'lp_norm', built in "
            '(easypruner_plugins.lp_norm), which defines it, is disabled by --disable-plugin or '
            'disable='
        )
        assert 'did you mean' in unknown('Randon'), 'no plugin that is left out has that'

    def test_the_environment_disables_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv('EASYPRUNER_DISABLE_PLUGINS', 'lp_norm')
        load_plugins()
        assert unknown('L1Norm').endswith('defines it, is disabled by EASYPRUNER_DISABLE_PLUGINS')

    def test_a_broken_plugin_has_it(self, tmp_path: Path) -> None:
        write_source(tmp_path, 'Cracked').open('a').write('1 / 0')
        load_plugins([tmp_path], skip_broken=True)
        assert unknown('Cracked').endswith(', which defines it, was skipped as broken')

    def test_a_plugin_is_not_imported_to_find_out(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file = write_source(tmp_path, 'Unwanted', 'unwanted_module.py')
        file.write_text('raise SystemExit("imported")\n' + file.read_text())
        write_distribution(tmp_path, 'unwanted', 'unwanted_module', 'unwanted')
        monkeypatch.syspath_prepend(tmp_path)
        load_plugins(disable=['unwanted'])
        plugin = "plugin 'unwanted', unwanted (unwanted_module)"
        assert f'{plugin}, which defines it' in unknown('Unwanted')

    def test_it_is_forgotten_when_it_is_loaded(self) -> None:
        load_plugins(disable=['lp_norm'])
        load_plugins()
        for registry in REGISTRIES:
            registry.fill([])
        assert unknown('L1Norm').startswith("unknown mask source 'L1Norm'; known names: none; a")

    def test_on_the_command_line(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        source = {'type': 'L1Norm', 'budget': {'type': 'Macs', 'keep': 0.5}}
        stages = [{'type': 'SelectMask', 'source': source}]
        config = write_config(tmp_path, tiny_config(stages=stages))
        assert prune(config, tmp_path / 'run', '--plan', '--disable-plugin', 'lp_norm') == 2
        assert "stages[0].source: unknown mask source 'L1Norm'; plugin 'lp_norm'" in (
            capsys.readouterr().err
        )


class TestListing:
    def test_disabled_plugins_are_listed(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv('EASYPRUNER_DISABLE_PLUGINS', 'ratio')
        assert main(['plugins', '--disable-plugin', 'macs']) == 0
        output = capsys.readouterr().out
        assert 'Disabled' in output
        assert '  macs, built in (easypruner_plugins.macs), by --disable-plugin' in output
        assert '  ratio, built in (easypruner_plugins.ratio), by EASYPRUNER_DISABLE' in output

    def test_as_json(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(['plugins', '--json', '--disable-plugin', 'macs']) == 0
        (entry,) = json.loads(capsys.readouterr().out)['disabled']
        assert entry['name'] == entry['address'] == 'macs'
        assert Path(entry['file']).name == 'macs.py'

    def test_nothing_is_listed_where_nothing_is_left_out(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(['plugins']) == 0
        assert 'Disabled' not in capsys.readouterr().out


class TestSkipping:
    def test_of_two_that_clash_a_built_in_stays(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        write_source(tmp_path, 'BNScale', 'clashing_module.py')
        write_distribution(tmp_path, 'clashing', 'clashing_module', 'clashing')
        monkeypatch.syspath_prepend(tmp_path)
        assert main(['plugins']) == 2
        assert "two plugins contribute a mask source 'BNScale'" in capsys.readouterr().err
        assert main(['plugins', '--json', '--skip-broken-plugins']) == 0
        listing = json.loads(capsys.readouterr().out)
        assert [plugin['name'] for plugin in listing['skipped']] == ['clashing']
        (entry,) = [c for c in listing['components'] if c['name'] == 'BNScale']
        assert entry['plugin'] == 'bn_scale'

    def test_all_components_of_a_broken_plugin_are_skipped(self, tmp_path: Path) -> None:
        hooks = (
            'def easypruner_configure_runner(runner, state): runner.append(1)\n'
            'class Layers(LayerHandler):\n'
            '    handles = (int,)\n'
            '    def resize(self, layer, shapes): pass\n'
            'class BNScale(MaskSource):\n'
            '    score = print\n'
            '@hookimpl\n'
            'def easypruner_components(): return [Layers, BNScale]\n'
        )
        imports = 'from easypruner import LayerHandler, MaskSource, hookimpl\n@hookimpl\n'
        write_plugin(tmp_path, 'clashing.py', imports + hooks)
        plugins = load_plugins([tmp_path], skip_broken=True)
        assert 'clashing' not in {plugin.name for plugin in plugins.plugins}
        assert 'Layers' not in LAYER_HANDLERS.classes
        runner: list[int] = []
        plugins.manager.hook.easypruner_configure_runner(runner=runner, state=None)
        assert not runner

    def test_a_network_is_slimmed_in_spite_of_a_broken_plugin(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write_plugin(tmp_path, 'broken_module.py', '1 / 0')
        write_distribution(tmp_path, 'breaking', 'broken_module', 'breaking')
        monkeypatch.syspath_prepend(tmp_path)
        for registry in REGISTRIES:
            registry.fill([])
        model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1))
        with pytest.raises(PluginError) as raised:
            easypruner.slim(model, torch.zeros(1, 3, 8, 8), macs=0.5)
        assert 'EASYPRUNER_DISABLE_PLUGINS=breaking in the environment' in str(raised.value)
        assert 'load_plugins(skip_broken=True)' in str(raised.value)
        load_plugins(skip_broken=True)
        assert easypruner.slim(model, torch.zeros(1, 3, 8, 8), macs=0.5).summary
        monkeypatch.setenv('EASYPRUNER_DISABLE_PLUGINS', 'breaking')
        assert not load_plugins().skipped


class TestAddresses:
    @pytest.fixture
    def folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
        """A folder with a plugin that has the name of an installed one."""
        write_source(tmp_path / 'site', 'InSite', 'addressed_module.py')
        write_distribution(tmp_path / 'site', 'reading', 'addressed_module', 'reader_norm')
        write_source(tmp_path / 'mine', 'InFolder', 'reader_norm.py')
        monkeypatch.syspath_prepend(tmp_path / 'site')
        return str(tmp_path / 'mine')

    @pytest.mark.parametrize(
        ('suffix', 'left'), [('@reading', {'InFolder'}), ('@FOLDER', {'InSite'}), ('', set())]
    )
    def test_one_of_two_plugins_of_one_name(
        self, suffix: str, left: set[str], folder: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        address = 'reader_norm' + suffix.replace('FOLDER', folder)
        assert main(['plugins', '--json', '--plugins', folder, '--disable-plugin', address]) == 0
        found = {entry['name'] for entry in json.loads(capsys.readouterr().out)['components']}
        assert found & {'InSite', 'InFolder'} == left

    def test_by_the_environment(self, folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv('EASYPRUNER_DISABLE_PLUGINS', f'x, reader_norm@{folder}')
        load_plugins([folder])
        assert 'InSite' in MASK_SOURCES.classes
        assert 'InFolder' not in MASK_SOURCES.classes

    def test_addresses_are_listed_where_names_are_not_enough(
        self, folder: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(['plugins', '--json', '--plugins', folder]) == 0
        listing = json.loads(capsys.readouterr().out)
        addresses = {entry['name']: entry['plugin'] for entry in listing['components']}
        assert addresses['InSite'] == 'reader_norm@reading'
        assert addresses['InFolder'] == f'reader_norm@{folder}'
        assert addresses['Macs'] == 'macs'

    def test_the_message_of_a_clash_shows_how_to_disable_either(self, folder: str) -> None:
        write_source(Path(folder), 'InSite', 'reader_norm.py')
        with pytest.raises(PluginError, match="contribute a mask source 'InSite'") as raised:
            load_plugins([folder])
        disable = f'disable reader_norm@reading or reader_norm@{folder} with --disable-plugin'
        assert disable in str(raised.value)

    def test_an_entry_point_may_be_named_like_a_built_in(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write_source(tmp_path, 'OwnMacs', 'own_macs_module.py')
        write_distribution(tmp_path, 'counting', 'own_macs_module', 'macs')
        monkeypatch.syspath_prepend(tmp_path)
        names = {c.name for c in load_plugins(disable=['macs@counting']).components}
        assert 'Macs' in names
        assert 'OwnMacs' not in names
        names = {c.name for c in load_plugins(disable=['macs@built-in']).components}
        assert 'Macs' not in names
        assert 'OwnMacs' in names

    @pytest.mark.parametrize(
        'name', ['reader_norm', 'addressed_package.reader', 'reader_norm@reading']
    )
    def test_a_plugin_that_is_found_twice_may_be_disabled_by_either_name(
        self, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write_plugin(tmp_path / 'addressed_package', '__init__.py', '')
        write_source(tmp_path / 'addressed_package', 'ReadTwice', 'reader.py')
        write_distribution(tmp_path, 'reading', 'addressed_package.reader', 'reader_norm')
        monkeypatch.syspath_prepend(tmp_path)
        imports = ['addressed_package.reader']
        plugins = load_plugins(custom_imports=imports)
        assert [c.name for c in plugins.components].count('ReadTwice') == 1
        plugins = load_plugins(custom_imports=imports, disable=[name])
        assert 'ReadTwice' not in {c.name for c in plugins.components}

    def test_an_unknown_address(self, folder: str) -> None:
        with pytest.raises(PluginError, match=r"did you mean 'reader_norm@reading'"):
            load_plugins([folder], disable=['reader_norm@readin'])
