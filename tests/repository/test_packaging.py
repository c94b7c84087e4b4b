"""Installations: a wheel without its checkout, and plugins that pip installed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import pytest
import yaml

import easypruner
from easypruner.cli.main import main
from tests.helpers.forked import printed_by
from tests.helpers.plugin_files import write_source

ROOT = Path(__file__).parents[2]
BUILT_INS = sorted(path.stem for path in ROOT.glob('plugins/[!_]*.py'))


def run(*command: str, site: Path | None = None, cwd: Path) -> str:
    """Run Python on ``command``, with ``site`` before everything else that is installed."""
    environment = dict(os.environ)
    environment.pop('PYTHONPATH', None)
    if site is not None:
        environment['PYTHONPATH'] = str(site)
    done = subprocess.run(
        [sys.executable, *command],
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def install(package: Path, site: Path) -> None:
    """Install a wheel or project into the folder ``site``, with nothing from the network."""
    options = ('--no-deps', '--no-index', '--no-build-isolation', '--quiet', '--target', str(site))
    run('-m', 'pip', 'install', *options, str(package), cwd=package.parent)


# With an editable install, missing modules of a package would be found in the checkout.
NO_CHECKOUT = """
import sys
sys.meta_path[:] = [f for f in sys.meta_path if '__editable__' not in getattr(f, '__module__', '')]
sys.path[:] = [entry for entry in sys.path if '__editable__' not in entry]
"""
LIST = "from easypruner.cli.main import main; sys.exit(main(['plugins', '--json', *sys.argv[1:]]))"


def listing(site: Path, cwd: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run('-c', NO_CHECKOUT + LIST, site=site, cwd=cwd))
    return found


def listing_beside_the_checkout(site: Path, *options: str) -> dict[str, Any]:
    """List what is installed in ``site``, and in this environment."""
    printed = printed_by(lambda: main(['plugins', '--json', *options]), site)
    found: dict[str, Any] = json.loads(printed)
    return found


@pytest.fixture(scope='module')
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a copy of the checkout."""
    copy = tmp_path_factory.mktemp('checkout') / 'checkout'
    copy.mkdir()
    for name in ('easypruner', 'plugins', 'configs', 'tools'):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns('__pycache__'))
    for name in ('setup.py', 'LICENSE', 'model-index.yml'):
        shutil.copy(ROOT / name, copy / name)
    run('setup.py', '--quiet', 'bdist_wheel', '--dist-dir', str(copy / 'dist'), cwd=copy)
    (built,) = (copy / 'dist').glob('*.whl')
    moved = tmp_path_factory.mktemp('wheel') / built.name
    shutil.move(built, moved)
    shutil.rmtree(copy)
    return moved


@pytest.fixture(scope='module')
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder the wheel is installed in."""
    folder = tmp_path_factory.mktemp('site')
    install(wheel, folder)
    return folder


@pytest.mark.in_ci
class TestWheel:
    def test_its_entry_points_are_the_files_of_plugins(self, wheel: Path) -> None:
        with zipfile.ZipFile(wheel) as content:
            (name,) = [n for n in content.namelist() if n.endswith('entry_points.txt')]
            points = ConfigParser()
            points.read_string(content.read(name).decode())
        assert dict(points['easypruner']) == {n: f'easypruner_plugins.{n}' for n in BUILT_INS}
        assert dict(points['console_scripts']) == {'easypruner': 'easypruner.cli.main:main'}

    def test_it_holds_every_file_of_the_packages(self, wheel: Path) -> None:
        with zipfile.ZipFile(wheel) as content:
            held = set(content.namelist())
        for folder, package in (
            ('easypruner', 'easypruner'),
            ('plugins', 'easypruner_plugins'),
            ('configs', 'easypruner_configs'),
        ):
            files = [f for f in (ROOT / folder).rglob('*') if f.is_file() and f.suffix != '.pyc']
            assert files
            for file in files:
                assert f'{package}/{file.relative_to(ROOT / folder).as_posix()}' in held

    @pytest.mark.slow
    def test_it_finds_its_strategies_without_the_checkout(self, site: Path, tmp_path: Path) -> None:
        found = listing(site, tmp_path)
        built_in = {p['name']: p['file'] for p in found['plugins'] if p['name'] in BUILT_INS}
        assert sorted(built_in) == BUILT_INS
        assert all(Path(file).is_relative_to(site) for file in built_in.values())
        assert {p['version'] for p in found['plugins']} == {easypruner.__version__}

    def test_it_finds_its_configs(self, site: Path, tmp_path: Path) -> None:
        names = (
            'from easypruner.pipeline import configs; '
            'print(*configs.shipped_configs().values(), sep="\\n")'
        )
        code = NO_CHECKOUT + names
        files = [Path(line) for line in run('-c', code, site=site, cwd=tmp_path).splitlines()]
        assert {file.stem for file in files} == {f.stem for f in ROOT.glob('configs/[!_]*.py')}
        assert all(file.is_relative_to(site) for file in files)

    def test_mim_finds_its_index_and_every_config_of_it(self, site: Path) -> None:
        folder = site / 'easypruner' / '.mim'
        index = yaml.safe_load((folder / 'model-index.yml').read_text())
        for metafile in index['Import']:
            for model in yaml.safe_load((folder / metafile).read_text())['Models']:
                assert (folder / model['Config']).is_file()
        assert (folder / 'configs' / '_base_' / 'runtime.py').is_file()
        assert (folder / 'tools' / 'prune.py').is_file()

    def test_a_deleted_strategy_is_missing_without_an_error(
        self, site: Path, tmp_path: Path
    ) -> None:
        shutil.copytree(site, tmp_path / 'site')
        (tmp_path / 'site' / 'easypruner_plugins' / 'macs.py').unlink()
        names = {
            component['plugin'] for component in listing(tmp_path / 'site', tmp_path)['components']
        }
        assert set(BUILT_INS) - names == {'macs'}


@pytest.mark.slow
def test_a_plugin_that_pip_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = tmp_path / 'project'
    write_source(project, 'FromPip', 'from_pip.py')
    (project / 'setup.py').write_text(
        'from setuptools import setup\n'
        "setup(name='from-pip', version='4.5', py_modules=['from_pip'],\n"
        "      entry_points={'easypruner': ['pipped = from_pip']})\n"
    )
    site = tmp_path / 'site'
    install(project, site)
    (info,) = [c for c in listing_beside_the_checkout(site)['components'] if c['name'] == 'FromPip']
    assert (info['plugin'], info['version'], info['origin']) == (
        'pipped',
        '4.5',
        'from-pip (from_pip)',
    )
    assert info['file'] == str(site / 'from_pip.py')
    off = listing_beside_the_checkout(site, '--disable-plugin', 'pipped')
    assert 'FromPip' not in {component['name'] for component in off['components']}
    monkeypatch.setenv('EASYPRUNER_DISABLE_PLUGINS', 'pipped')
    also_off = listing_beside_the_checkout(site)
    for found in (off, also_off):
        (disabled,) = found.pop('disabled')
        assert (disabled['name'], disabled['file']) == ('pipped', str(site / 'from_pip.py'))
    assert also_off == off


def test_setup_reads_the_version_from_the_package() -> None:
    assert run('setup.py', '--quiet', '--version', cwd=ROOT).split()[-1] == easypruner.__version__
