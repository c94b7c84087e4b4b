"""The page on masks of other programs: its blocks run one after the other."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from easypruner_plugins.mask_file import MaskFile

from easypruner.strategies.sources.mask_files.contents import WHICH

NAME = 'masks_from_elsewhere.md'
PAGE = (Path(__file__).parents[2] / 'docs' / NAME).read_text(encoding='utf-8')
BLOCKS = re.findall(r'```python\n(.*?)```\n', PAGE, re.DOTALL)


@pytest.mark.slow
def test_the_blocks_run_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    timm = pytest.importorskip('timm')
    pytest.importorskip('torch_pruning')
    monkeypatch.chdir(tmp_path)
    weights = timm.create_model('efficientnet_b1_pruned').state_dict()
    torch.save(weights, 'efficientnet_b1_pruned.pth')
    (tmp_path / 'fix_subnet.json').write_text(json.dumps({'conv1_(0, 64)_64': 32}))
    masks = defaultdict(dict, conv1={'weight': torch.ones(64, 3, 7, 7)})
    names: dict[str, Any] = {'pruner': SimpleNamespace(get_masks=lambda: masks)}
    printed = []
    for code in BLOCKS:
        exec(code, names)
        printed += capsys.readouterr().out.split()
    assert printed == ['6331916']
    for source in (names['stages'][0]['source'], names['masks']):
        MaskFile(**{key: value for key, value in source.items() if key != 'type'}).check()


def test_the_page_has_all_values_of_which() -> None:
    assert all(f"`which='{name}'`" in PAGE for name in WHICH)
