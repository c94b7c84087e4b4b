"""The page on detectors: its blocks run in their order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from .test_code_blocks import ROOT, blocks_of

PAGE = ROOT / 'docs' / 'detectors.md'


def _blocks() -> list[str]:
    text = PAGE.read_text(encoding='utf-8')
    return [block.text for block in blocks_of(text) if block.language == 'python']


def test_the_block_on_outputs_runs() -> None:
    exec(_blocks()[2], {'easypruner': __import__('easypruner'), 'torch': torch})


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore')
def test_the_blocks_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip('ultralytics')
    pytest.importorskip('onnx')
    pytest.importorskip('polars')
    cv2: Any = pytest.importorskip('cv2')
    monkeypatch.chdir(tmp_path)
    for part in ('images', 'labels'):
        Path(part).mkdir()
    for number in range(2):
        image = torch.randint(0, 255, (64, 64, 3), dtype=torch.uint8)
        cv2.imwrite(f'images/{number}.jpg', image.numpy())
        Path(f'labels/{number}.txt').write_text('0 .5 .5 .4 .4\n')
    names = list(range(80))
    Path('data.yaml').write_text(
        f'path: {tmp_path}\ntrain: images\nval: images\nnames: {[f"thing {n}" for n in names]}\n'
    )
    found: dict[str, Any] = {}
    for block in _blocks():
        block = block.replace('epochs=1,', f'epochs=1, project={str(tmp_path)!r},')
        if 'small' in found:
            last = found['small'].overrides['model']
            block = block.replace('runs/detect/train/weights/best.pt', last)
        exec(block, found)
    sizes = {
        name: sum(p.numel() for p in found[name].model.parameters()) for name in ('yolo', 'again')
    }
    assert sizes['again'] < sizes['yolo']
