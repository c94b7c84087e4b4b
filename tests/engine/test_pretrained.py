"""An init_cfg of type Pretrained has to fit, and its file is not unpickled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.model.weight_init import PretrainedInit
from mmengine.registry import DefaultScope
from mmengine.runner import checkpoint as zoo
from torch import nn

from easypruner.engine.compat import prepare
from easypruner.engine.pretrained import build_initial_model, starts_trained, weights_source
from easypruner.errors import ConfigError, EasyPrunerError, Mistakes
from tests.helpers.tiny import prune, tiny_config, write_config


def build(content: dict[str, Any]) -> tuple[nn.Module, list[str]]:
    prepare()
    mistakes = Mistakes()
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model, notes = build_initial_model(Config(content), mistakes)
    mistakes.raise_all()
    assert model is not None
    return model, notes


def with_init(part: str, **init: Any) -> dict[str, Any]:
    """Return a config of which a part of the model, or the whole, has an init_cfg."""
    content = tiny_config()
    target = content['model'][part] if part else content['model']
    target['init_cfg'] = dict(type='Pretrained', **init)
    return content


@pytest.fixture(name='weights')
def fixture_weights(tmp_path: Path) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    weights = build(tiny_config())[0].state_dict()
    torch.save({'state_dict': weights, 'meta': {}}, tmp_path / 'whole.pth')
    backbone = {n.removeprefix('backbone.'): t for n, t in weights.items() if 'backbone' in n}
    torch.save({**backbone, 'fc.weight': torch.ones(10, 16)}, tmp_path / 'backbone.pth')
    return weights


def same(model: nn.Module, weights: dict[str, torch.Tensor], start: str = '') -> bool:
    own = model.state_dict()
    return all(torch.equal(own[n], t) for n, t in weights.items() if n.startswith(start))


def test_the_whole_model(tmp_path: Path, weights: dict[str, torch.Tensor]) -> None:
    before = PretrainedInit.__init__, PretrainedInit.__call__
    model, notes = build(with_init('', checkpoint=str(tmp_path / 'whole.pth')))
    assert same(model, weights)
    assert notes[0].startswith('model.init_cfg: ')
    assert (PretrainedInit.__init__, PretrainedInit.__call__) == before


@pytest.mark.parametrize('prefix', ['backbone', 'backbone.'])
def test_a_part_of_a_whole_checkpoint(
    prefix: str, tmp_path: Path, weights: dict[str, torch.Tensor]
) -> None:
    init = dict(checkpoint=str(tmp_path / 'whole.pth'), prefix=prefix)
    model, notes = build(with_init('backbone', **init))
    assert same(model, weights, 'backbone')
    assert notes[0].startswith('model.backbone.init_cfg: ')


def test_a_part_of_a_checkpoint_of_ddp(tmp_path: Path, weights: dict[str, torch.Tensor]) -> None:
    torch.save({f'module.{name}': tensor for name, tensor in weights.items()}, tmp_path / 'd.pth')
    init = dict(checkpoint=str(tmp_path / 'd.pth'), prefix='backbone')
    assert same(build(with_init('backbone', **init))[0], weights, 'backbone')


def test_weights_of_other_parts_are_reported(
    tmp_path: Path, weights: dict[str, torch.Tensor]
) -> None:
    model, notes = build(with_init('backbone', checkpoint=str(tmp_path / 'backbone.pth')))
    assert same(model, weights, 'backbone')
    assert 'not used: fc.weight' in notes[0]


def test_a_rule_of_the_init(tmp_path: Path, weights: dict[str, torch.Tensor]) -> None:
    renamed = {n.replace('conv1', 'first'): t for n, t in weights.items()}
    torch.save(renamed, tmp_path / 'renamed.pth')
    init = dict(checkpoint=str(tmp_path / 'renamed.pth'), rename=[('first', 'conv1')])
    assert same(build(with_init('', **init))[0], weights)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'prefix': 'bakbone'}, "did you mean 'backbone'?"),
        ({}, '0 of the model'),
        ({'checkpoint': 'nowhere.pth'}, "no checkpoint 'nowhere.pth'"),
        ({'rename': 'timm'}, 'not a shipped map'),
        ({'strict': True}, "does not take 'strict'"),
    ],
)
def test_mistakes(
    change: dict[str, Any], message: str, tmp_path: Path, weights: dict[str, torch.Tensor]
) -> None:
    init = dict(checkpoint=str(tmp_path / 'whole.pth')) | change
    with pytest.raises(ConfigError) as caught:
        build(with_init('backbone', **init))
    assert 'model.backbone.init_cfg' in str(caught.value)
    assert message in str(caught.value)


def test_a_deeper_network_of_the_same_family_is_refused(
    tmp_path: Path, weights: dict[str, torch.Tensor]
) -> None:
    """All weights of the model are in the file, and MMEngine would only print the others."""
    content = tiny_config()
    content['model']['backbone']['depth'] = 14
    deeper = {n.removeprefix('backbone.'): t for n, t in build(content)[0].state_dict().items()}
    torch.save(deeper, tmp_path / 'deeper.pth')
    with pytest.raises(ConfigError, match=r'0 missing, \d+ unexpected'):
        build(with_init('backbone', checkpoint=str(tmp_path / 'deeper.pth')))


def test_nothing_is_unpickled(tmp_path: Path, weights: dict[str, torch.Tensor]) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / 'trap',)

    torch.save({'state_dict': weights, 'evil': Evil()}, tmp_path / 'evil.pth')
    with pytest.raises(EasyPrunerError, match='cannot be read as plain weights'):
        build(with_init('', checkpoint=str(tmp_path / 'evil.pth')))
    assert not (tmp_path / 'trap').exists()


@pytest.mark.in_ci
def test_a_run_cuts_and_trains_a_network_with_an_init(
    tmp_path: Path, weights: dict[str, torch.Tensor], capsys: pytest.CaptureFixture[str]
) -> None:
    """Later stages have other shapes, and neither need the file nor read it."""
    content = with_init('', checkpoint=str(tmp_path / 'whole.pth'))
    content['stages'] = [
        dict(type='Evaluate'),
        dict(type='SelectMask', source=dict(type='BNScale', budget=dict(type='Macs', keep=0.5))),
        dict(type='Prune'),
        dict(type='Train', epochs=1, row='tuned'),
        dict(type='Report'),
    ]
    config = write_config(tmp_path, content)
    assert prune(config, tmp_path / 'run', '-v') == 0
    printed = ''.join(capsys.readouterr())
    assert 'unexpected key' not in printed and 'size mismatch' not in printed


@pytest.mark.parametrize(
    ('changes', 'expected'),
    [({}, False), ({'load_from': 'a.pth'}, True), ({'load_from': {'checkpoint': 'a.pth'}}, True)],
)
def test_whether_a_run_starts_with_trained_weights(changes: dict[str, Any], expected: bool) -> None:
    assert starts_trained(Config(tiny_config(**changes))) is expected
    assert starts_trained(Config(with_init('', checkpoint='a.pth')))
    assert not starts_trained(Config(with_init('backbone', checkpoint='a.pth')))
    assert not starts_trained(Config(dict(model=dict(type='TimmClassifier', pretrained=False))))


def test_names_of_the_zoos_of_mmengine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoo, 'get_torchvision_models', lambda: {'resnet50': 'https://a/r.pth'})
    monkeypatch.setattr(zoo, 'get_mmcls_models', lambda: {'r': 'https://a/m.pth'})
    assert weights_source('torchvision://resnet50', 'x').checkpoint == 'https://a/r.pth'
    given = weights_source('mmcls://r', 'x')
    assert (given.checkpoint, given.prefix) == ('https://a/m.pth', 'backbone')
    for name in ('torchvision://resnet5', 'torchvison://resnet50'):
        with pytest.raises(ConfigError, match='did you mean'):
            weights_source(name, 'x')
