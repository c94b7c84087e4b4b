"""A run starts from checkpoints in the layouts of other libraries, with the same outputs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from safetensors.torch import save_file
from torch import nn

from easypruner.engine.compat import prepare
from easypruner.engine.pretrained import build_initial_model
from easypruner.errors import Mistakes
from tests.helpers.pycls_resnet import PyclsResNet
from tests.helpers.resnet50 import CLASSES, make_folder, resnet50_config, with_random_statistics
from tests.helpers.tiny import prune, tiny_config, write_config


def torchvision_resnet50() -> nn.Module:
    from torchvision.models import resnet50

    return resnet50(num_classes=CLASSES)


def timm_resnet50() -> nn.Module:
    timm = pytest.importorskip('timm')
    model: nn.Module = timm.create_model('resnet50', num_classes=CLASSES)
    return model


def mmpretrain_resnet50() -> nn.Module:
    return initial(resnet50_config(Path('unused')))


def initial(content: dict[str, Any]) -> nn.Module:
    prepare()
    mistakes = Mistakes()
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model, _ = build_initial_model(Config(content), mistakes)
    mistakes.raise_all()
    assert model is not None
    return model


def logits(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Return the outputs of any of these networks."""
    model.eval()
    with torch.no_grad():
        if hasattr(model, 'head') and hasattr(model, 'backbone'):
            # In the mode 'tensor', mmpretrain's classifiers leave out the last layer.
            model, images = model.head, model.extract_feat(images)
        outputs: torch.Tensor = model(images)
    return outputs


SOURCE = dict(type='BNScale', budget=dict(type='Macs', keep=0.5))
LAYOUTS: dict[str, tuple[Callable[[], nn.Module], str | None]] = {
    'torchvision': (torchvision_resnet50, 'torchvision->mmpretrain'),
    'timm': (timm_resnet50, 'timm->mmpretrain'),
    'mmpretrain': (mmpretrain_resnet50, None),
    'pycls': (lambda: PyclsResNet(classes=CLASSES), 'pycls->mmpretrain'),
}


@pytest.mark.slow
@pytest.mark.parametrize('layout', LAYOUTS)
def test_a_resnet50_of_another_library_has_the_same_outputs(
    layout: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build, rename = LAYOUTS[layout]
    source = with_random_statistics(build())
    file = tmp_path / 'weights.pth'
    weights = source.state_dict()
    torch.save({'meta': {}, 'state_dict': weights} if layout == 'mmpretrain' else weights, file)
    content = resnet50_config(make_folder(tmp_path / 'data'))
    arguments = [] if rename is None else ['--rename', rename]
    config = write_config(tmp_path, content)
    assert prune(config, tmp_path / 'run', '--plan', '--load-from', str(file), *arguments) == 0
    assert 'weights: load_from: 320 weights' in ' '.join(capsys.readouterr().out.split())
    model = initial({**content, 'load_from': dict(checkpoint=str(file), rename=rename)})
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(logits(model, images), logits(source, images), rtol=0, atol=0)


@pytest.mark.slow
def test_the_map_that_is_proposed_is_the_one_to_use(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before training, in one screen, and by structure as well."""
    file = tmp_path / 'weights.pth'
    torch.save(torchvision_resnet50().state_dict(), file)
    content = resnet50_config(make_folder(tmp_path / 'data'), load_from=str(file))
    config = write_config(tmp_path, content)
    assert prune(config, tmp_path / 'run', '--plan') == 2
    message = capsys.readouterr().err
    assert "rename='torchvision->mmpretrain' (everything fits)" in message
    assert "0 of the model's 320 weights fit" in message
    assert len(message.splitlines()) <= 24
    assert prune(config, tmp_path / 'run', '--plan', '--rename', 'by_structure') == 0


class TestTiny:
    """The same with an 8-layer network, whose runs take seconds."""

    def weights(self, **changes: Any) -> dict[str, torch.Tensor]:
        content = tiny_config()
        content['model']['backbone'].update(changes)
        return initial(content).state_dict()

    def test_a_run_starts_from_the_command_line(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        weights = self.weights()
        save_file({f'net.{n}': t.contiguous() for n, t in weights.items()}, tmp_path / 'w.pth')
        config = write_config(tmp_path, tiny_config(stages=[dict(type='Evaluate')]))
        given = ['--load-from', str(tmp_path / 'w.pth')]
        assert prune(config, tmp_path / 'run', *given) == 0
        assert 'without net. in the names' in capsys.readouterr().out
        start = torch.load(tmp_path / 'run' / 'initial.pth', weights_only=True)
        assert all(torch.equal(start[name], tensor) for name, tensor in weights.items())
        assert prune(config, tmp_path / 'run', *given, '--resume') == 0
        assert prune(config, tmp_path / 'run', '--resume') == 2
        assert 'load_from' in capsys.readouterr().err

    @pytest.mark.parametrize(
        ('arguments', 'message'),
        [
            (['--load-from', 'nowhere.pth'], "load_from: there is no checkpoint 'nowhere.pth'"),
            (['--rename', 'timm->mmpretrain'], 'got --rename, but no checkpoint'),
            (['--skip', 'head.*'], 'got --skip, but no checkpoint'),
            (['--load-from', 'w.pth', '--rename', 'timm->mmpretrian'], "'timm->mmpretrain'?"),
            (['--load-from', 'w.pth', '--skip', '('], 'not a regular expression'),
            (['--load-from', 'w.pth', '--skip', 'head.fx.*'], "did you mean 'head.fc'?"),
            (['--load-from', 's3://a/b.pth'], 'load_from'),
            (['--load-from', 'deep.pth'], '4 missing'),
            (['--cfg-options', 'load_from.checkpoint=w.pth', 'load_from.prefx=a'], 'prefix'),
        ],
    )
    def test_mistakes_are_found_before_training(
        self,
        arguments: list[str],
        message: str,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.chdir(tmp_path)
        weights = self.weights()
        torch.save(weights, 'w.pth')
        last = [name for name in weights if name.startswith('backbone.bn1')]
        torch.save({n: t for n, t in weights.items() if n not in last}, 'deep.pth')
        assert prune(write_config(tmp_path), tmp_path / 'run', *arguments) == 2
        error = capsys.readouterr().err
        assert message in error and 'Traceback' not in error
        assert not (tmp_path / 'run').is_dir()

    def test_another_number_of_classes(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        content = tiny_config(stages=[dict(type='Evaluate')])
        content['model']['head']['num_classes'] = 12
        torch.save(initial(content).state_dict(), tmp_path / 'w.pth')
        config = write_config(tmp_path, tiny_config(stages=[dict(type='Evaluate')]))
        arguments = ['--plan', '--load-from', str(tmp_path / 'w.pth')]
        assert prune(config, tmp_path / 'run', *arguments) == 2
        error = capsys.readouterr().err
        assert 'The checkpoint has 12 classes and the model has 10, in head.fc' in error
        assert r"skip=['head\\.fc\\..*']" in error
        assert prune(config, tmp_path / 'run', *arguments, '--skip', r'head\.fc\..*') == 0
        assert 'initial values stay in head.fc.weight, head.fc.bias' in capsys.readouterr().out

    def test_stages_take_a_checkpoint_with_a_rule(self, tmp_path: Path) -> None:
        renamed = {f'x.{name}': tensor for name, tensor in self.weights().items()}
        torch.save({**renamed, 'loss.weight': torch.ones(1)}, tmp_path / 'w.pth')
        given = dict(checkpoint=str(tmp_path / 'w.pth'), prefix='x')
        stages = [
            dict(type='Evaluate', checkpoint=given),
            dict(type='SelectMask', source=SOURCE),
            dict(type='Prune'),
            dict(type='Distill', epochs=1, teacher=given),
        ]
        config = write_config(tmp_path, tiny_config(stages=stages))
        assert prune(config, tmp_path / 'run') == 0
        after = torch.load(tmp_path / 'run/00_evaluate/weights.pth', weights_only=True)
        assert all(torch.equal(after[name[2:]], tensor) for name, tensor in renamed.items())
