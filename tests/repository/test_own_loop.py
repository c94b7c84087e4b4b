"""The page on training loops of one's own: its blocks run one after the other."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import sklearn.datasets

PAGE = Path(__file__).parents[2] / 'docs' / 'own_loop.md'
BLOCKS = {
    text.partition('\n')[0]: re.findall(r'```python\n(.*?)```\n', text, re.DOTALL)
    for text in PAGE.read_text(encoding='utf-8').split('\n## ')[1:]
}
TRAINERS = {
    'Lightning': 'lightning',
    'Accelerate': 'accelerate',
    'The Trainer of Hugging Face': 'transformers',
}
pytestmark = pytest.mark.filterwarnings('ignore')


@pytest.fixture(scope='module')
def names(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Run the sections for plain PyTorch on a few digits; return the variables."""
    pytest.importorskip('timm')
    names: dict[str, Any] = {'__name__': '__main__'}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp('own_loop'))
        few = sklearn.datasets.load_digits()
        few.images, few.target = few.images[:160], few.target[:160]
        patch.setattr(sklearn.datasets, 'load_digits', lambda: few)
        for section, blocks in BLOCKS.items():
            if section not in TRAINERS:
                run(blocks, names)
    return names


def run(blocks: list[str], names: dict[str, Any]) -> None:
    for block in blocks:
        exec(block.replace('EPOCHS = 8', 'EPOCHS = 1').replace('size=32', 'size=16'), names)


@pytest.mark.in_ci
def test_the_sections_for_plain_pytorch(names: dict[str, Any]) -> None:
    assert 'MaskSparsity (proximal' in str(names['slimmed'])
    assert names['slimmed'].summary.after.macs <= 0.5 * names['slimmed'].summary.before.macs
    full = names['timm'].create_model('resnet10t', in_chans=1, num_classes=10)
    pruned = names['again']
    assert sum(p.numel() for p in pruned.parameters()) < sum(p.numel() for p in full.parameters())


@pytest.mark.in_ci
@pytest.mark.parametrize('section', TRAINERS)
def test_the_sections_of_trainers(
    section: str, names: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(TRAINERS[section])
    monkeypatch.chdir(tmp_path)
    run(BLOCKS[section], names)


def test_no_section_is_left_out() -> None:
    assert set(TRAINERS) < set(BLOCKS) and len(BLOCKS) >= 10
    assert all(len(blocks) >= 1 for blocks in BLOCKS.values())
