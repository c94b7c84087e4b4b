"""The layer handlers for Ultralytics, and its own calls on a pruned network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import easypruner
from easypruner.errors import ConfigError

ultralytics: Any = pytest.importorskip('ultralytics')
pytestmark = pytest.mark.filterwarnings('ignore')


def _yolo(name: str) -> Any:
    torch.manual_seed(0)
    yolo = ultralytics.YOLO(name)
    for module in yolo.model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.8, 1.6)
            nn.init.normal_(module.bias, std=0.2)
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return yolo


@pytest.mark.slow
@pytest.mark.parametrize('name', ['yolov8n', 'yolo11n', 'yolo26n', 'yolov8n-seg', 'yolo11n-pose'])
def test_a_pruned_yolo_exports_fuses_and_is_opened_again(name: str, tmp_path: Path) -> None:
    yolo, x = _yolo(f'{name}.yaml'), torch.rand(1, 3, 64, 64)
    before = sum(p.numel() for p in yolo.model.parameters())
    slimmed = easypruner.slim(yolo, x, macs=0.5)
    held = {frozen.reason for frozen in easypruner.trace(yolo, x).frozen}
    assert not any('feats' in reason or 'follow' in reason for reason in held)
    pruned = slimmed.model
    assert isinstance(pruned, ultralytics.YOLO)
    assert sum(p.numel() for p in pruned.model.parameters()) < before
    assert sum(p.numel() for p in yolo.model.parameters()) == before
    network = pruned.model.eval()
    expected = network(x)[0][0] if 'seg' in name or 'pose' in name else network(x)[0]
    for block in network.modules():
        if hasattr(block, 'forward_split'):
            block.forward = block.forward_split
    got = network(x)[0][0] if 'seg' in name or 'pose' in name else network(x)[0]
    torch.testing.assert_close(got, expected)
    pruned.save(tmp_path / 'pruned.pt')
    opened = ultralytics.YOLO(tmp_path / 'pruned.pt').model
    assert {n: p.shape for n, p in opened.named_parameters()} == {
        n: p.shape for n, p in pruned.model.named_parameters()
    }
    opened.fuse(verbose=False)
    opened(x)


def _data(folder: Path, names: list[str]) -> str:
    cv2: Any = pytest.importorskip('cv2')
    for part in ('images', 'labels'):
        (folder / part).mkdir(parents=True)
    for number in range(2):
        image = torch.randint(0, 255, (64, 64, 3), dtype=torch.uint8)
        cv2.imwrite(str(folder / 'images' / f'{number}.jpg'), image.numpy())
        (folder / 'labels' / f'{number}.txt').write_text('0 .5 .5 .4 .4\n')
    file = folder / 'data.yaml'
    file.write_text(f'path: {folder}\ntrain: images\nval: images\nnames: {names}\n')
    return str(file)


@pytest.mark.slow
def test_training_keeps_the_widths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    integration = pytest.importorskip('easypruner.integrations.ultralytics')
    pytest.importorskip('polars')
    monkeypatch.chdir(tmp_path)
    options = dict(
        imgsz=64, epochs=1, batch=2, workers=0, plots=False, device='cpu', project=str(tmp_path)
    )
    yolo = _yolo('yolov8n.yaml')
    names = list(yolo.model.names.values())
    pruned = easypruner.slim(yolo, torch.rand(1, 3, 64, 64), params=0.5).model
    shapes = {n: p.shape for n, p in pruned.model.named_parameters()}
    pruned.train(data=_data(tmp_path / 'all', names), **options)
    assert {n: p.shape for n, p in pruned.model.named_parameters()} == shapes
    again = integration.pruned(pruned.overrides['model'])
    again.train(data=str(tmp_path / 'all' / 'data.yaml'), **options)
    assert {n: p.shape for n, p in again.model.named_parameters()} == shapes
    with pytest.raises(ConfigError, match='the data has 1 classes, and the pruned network 80'):
        pruned.train(data=_data(tmp_path / 'one', ['thing']), **options)
    with pytest.raises(ConfigError, match='leave out pretrained='):
        pruned.train(data=str(tmp_path / 'all' / 'data.yaml'), pretrained=False, **options)


def test_a_reparameterized_convolution_merges_its_branches_after_a_cut() -> None:
    modules = pytest.importorskip('ultralytics.nn.modules.conv')
    net = nn.Sequential(
        nn.Conv2d(3, 8, 1), modules.RepConv(8, 12, bn=False), nn.Conv2d(12, 2, 1)
    ).eval()
    x = torch.randn(1, 3, 6, 6)
    graph = easypruner.trace(net, x)
    masks = {name: torch.arange(group.size) > 2 for name, group in graph.groups.items()}
    easypruner.prune(net, masks, graph=graph)
    expected = net(x)
    net[1].fuse_convs()
    net[1].forward = net[1].forward_fuse
    torch.testing.assert_close(net(x), expected, rtol=1e-4, atol=1e-4)
