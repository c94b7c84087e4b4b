"""The files that OpenMMLab's tools read: they are up to date, and name every shipped config."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from mmengine.config import Config

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope='module')
def metafiles() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        # As when it runs as a script.
        patch.syspath_prepend(ROOT / 'docs')
        yield importlib.import_module('metafiles')


def test_the_files_are_up_to_date(metafiles: ModuleType) -> None:
    expected = metafiles.files()
    found = {path: (ROOT / path).read_text(encoding='utf-8') for path in expected}
    assert found == expected, 'run python docs/metafiles.py'


def test_every_metafile_is_imported_and_every_config_named_once() -> None:
    imported = yaml.safe_load((ROOT / 'model-index.yml').read_text())['Import']
    there = (ROOT / 'configs' / '_metafiles_').rglob('*.yml')
    assert sorted(imported) == sorted(str(path.relative_to(ROOT)) for path in there)
    contents = [yaml.safe_load((ROOT / path).read_text()) for path in imported]
    named = [model['Config'] for content in contents for model in content['Models']]
    assert sorted(named) == sorted(f'configs/{p.name}' for p in (ROOT / 'configs').glob('[!_]*.py'))
    for content in contents:
        (collection,) = content['Collections']
        assert (ROOT / collection['README']).is_file()
        for model in content['Models']:
            assert model['In Collection'] == collection['Name']
            assert Path(model['Config']).stem == model['Name']


@pytest.mark.in_ci
def test_networks_of_the_metafiles_are_those_of_the_configs(metafiles: ModuleType) -> None:
    for path, text in metafiles.files().items():
        for model in yaml.safe_load(text).get('Models', ()):
            backbone = Config.fromfile(ROOT / model['Config']).model.backbone
            network = model['Metadata']['Architecture']
            depth = str(backbone.get('depth', ''))
            if 'stages' in backbone:
                depth = str(sum(map(len, backbone.stages)) + 1)
            assert backbone.type.removeprefix('easypruner.')[:3] == network[:3], path
            assert depth == ''.join(filter(str.isdigit, network)).removesuffix('2' * (not depth))


def test_the_library_of_mim_reads_them() -> None:
    load = pytest.importorskip('modelindex.load_model_index').load
    index = load(str(ROOT / 'model-index.yml'))
    index.build_models_with_collections()
    papers = {model.name: model.full_model.paper for model in index.models}
    assert papers['masksparsity_r50_in1k']['URL'] == 'https://arxiv.org/abs/2201.06776'
