"""The page on checkpoints: its blocks and commands run one after the other."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from easypruner.checkpoints.maps import MAPS
from easypruner.cli.main import main
from easypruner.pipeline import preflight
from tests.helpers.resnet50 import make_folder, resnet50_config
from tests.helpers.tiny import write_config

PAGE = (Path(__file__).parents[2] / 'docs' / 'checkpoints.md').read_text(encoding='utf-8')
BLOCKS = re.findall(r'```(\w+)\n(.*?)```\n', PAGE, re.DOTALL)


def small_config(data: Path) -> dict[str, Any]:
    content = resnet50_config(data)
    content['model']['backbone']['depth'] = 18
    content['model']['head']['in_channels'] = 512
    return content


@pytest.mark.slow
def test_the_blocks_run_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # What a plan tries on a batch has tests of its own.
    monkeypatch.setattr(preflight, 'try_one_batch', lambda *_: None)
    monkeypatch.chdir(tmp_path)
    content = small_config(make_folder(tmp_path / 'data'))
    write_config(tmp_path, content, 'my_config')
    names: dict[str, Any] = {}
    refused = ''
    for language, code in BLOCKS:
        if language == 'python':
            exec(code, names)
        elif language == 'bash':
            capsys.readouterr()
            returned = main(shlex.split(code)[1:])
            printed, error = capsys.readouterr()
            refused = error if returned else ''
        else:
            assert refused.strip() == code.strip()
            refused = ''
        if '--rename' in code:
            plan = ' '.join(printed.split())
            assert not refused and 'weights from' in plan
            for stated in re.findall(r'`(weights: load_from: .*?)`', PAGE.replace('\n', ' ')):
                assert stated in plan or "resnet18.pth --rename 'torch" not in code
    assert {language for language, _ in BLOCKS} == {'python', 'bash', 'text'}
    content['load_from'] = names['load_from']
    content['model']['backbone'] = names['backbone']
    config = write_config(tmp_path, content, 'my_config')
    assert main(['prune', str(config), '--plan']) == 0
    assert "init_cfg: 120 weights from 'resnet18.pth'; not used: fc.weight, fc.bias" in ' '.join(
        capsys.readouterr().out.split()
    )


def test_the_page_has_all_maps() -> None:
    assert all(f'`{name}`' in PAGE for name in MAPS)
