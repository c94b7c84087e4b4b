"""The configs of the released recipe: what they say, and a whole run of each, shrunk."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from easypruner_plugins.mask_file import MaskFile
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import Runner

import easypruner
from easypruner import Context
from easypruner.errors import MaskError
from easypruner.graph import ChannelGraph
from easypruner.registry import MODELS
from tests.helpers.imagenet import make_imagenet
from tests.helpers.pycls_resnet import PyclsResNet
from tests.helpers.shrunk import shrunk
from tests.helpers.tiny import prune, summary

CONFIGS = Path(__file__).parents[2] / 'configs'
RECIPE = CONFIGS / 'masksparsity_r50_in1k.py'
FROM_MASK = CONFIGS / 'masksparsity_r50_in1k_from_released_mask.py'
WIDTHS = {1: 64, 2: 128, 3: 256, 4: 512}
DEPTHS = {1: 3, 2: 4, 3: 6, 4: 3}

Kept = Mapping[str, int]
"""Batch norm by its name in pycls -> the number of channels that a mask keeps."""

FLOPS70: Kept = {
    'stem.bn': 61,
    's1.b1.f.a_bn': 30, 's1.b1.f.b_bn': 50, 's1.b2.f.a_bn': 48, 's1.b2.f.b_bn': 51,
    's1.b3.f.a_bn': 60, 's1.b3.f.b_bn': 63, 's2.b1.f.a_bn': 124, 's2.b1.f.b_bn': 127,
    's2.b2.f.a_bn': 83, 's2.b2.f.b_bn': 73, 's2.b3.f.a_bn': 111, 's2.b3.f.b_bn': 123,
    's2.b4.f.a_bn': 88, 's2.b4.f.b_bn': 80, 's3.b1.f.a_bn': 250, 's3.b1.f.b_bn': 248,
    's3.b2.f.a_bn': 155, 's3.b2.f.b_bn': 150, 's3.b3.f.a_bn': 164, 's3.b3.f.b_bn': 180,
    's3.b4.f.a_bn': 130, 's3.b4.f.b_bn': 152, 's3.b5.f.a_bn': 149, 's3.b5.f.b_bn': 140,
    's3.b6.f.a_bn': 114, 's3.b6.f.b_bn': 112, 's4.b1.f.a_bn': 509, 's4.b1.f.b_bn': 500,
    's4.b2.f.a_bn': 184, 's4.b2.f.b_bn': 207, 's4.b3.f.a_bn': 506, 's4.b3.f.b_bn': 511,
}  # fmt: skip
"""The widths of lambda_0.0002_th-0.001_flops70.mask."""


def uniform() -> Kept:
    """Return the widths of 0.5_uniform.mask: two thirds of each layer, rounded up or to nearest."""
    kept = {'stem.bn': 43}
    for stage, width in WIDTHS.items():
        inner, outer = {64: (43, 171), 128: (86, 341), 256: (171, 681), 512: (341, 1362)}[width]
        for block in range(1, DEPTHS[stage] + 1):
            path = f's{stage}.b{block}'
            kept |= {f'{path}.f.a_bn': inner, f'{path}.f.b_bn': inner, f'{path}.f.c_bn': outer}
        kept[f's{stage}.b1.bn'] = outer
    return kept


def width_of(layer: str) -> int:
    """Return the width of a batch norm of ResNet-50, by its name in pycls."""
    if layer == 'stem.bn':
        return 64
    width = WIDTHS[int(layer[1])]
    return width if layer.endswith(('a_bn', 'b_bn')) else 4 * width


def write_masks(path: Path, kept: Kept, widths: Mapping[str, int] | None = None) -> str:
    """Write a mask file in the layout of the released ones, with random channels."""
    generator = np.random.default_rng(0)
    masks, streams = OrderedDict(), {}
    for layer, count in kept.items():
        mask = np.zeros((widths or {}).get(layer) or width_of(layer), dtype=bool)
        mask[generator.choice(len(mask), count, replace=False)] = True
        # The layers of a residual stream have the same mask.
        stream = layer[:2] if layer.endswith(('c_bn', '1.bn')) else layer
        masks[layer] = streams.setdefault(stream, torch.from_numpy(mask))
    torch.save(masks, path)
    return str(path)


@pytest.fixture(scope='module')
def resnet50() -> ChannelGraph:
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(Config.fromfile(RECIPE).model.to_dict())
    return easypruner.trace(model.eval(), torch.zeros(1, 3, 224, 224))


def source(path: str) -> MaskFile:
    settings = Config.fromfile(FROM_MASK).stages[1].source.to_dict()
    return MaskFile(**{k: v for k, v in settings.items() if k != 'type'} | {'path': path})


@pytest.mark.parametrize(
    ('kept', 'macs'), [(FLOPS70, 2_862_060_890), (uniform(), 1_853_261_483)], ids=['70', 'uniform']
)
def test_the_released_widths_have_the_right_cost(
    kept: Kept, macs: int, resnet50: ChannelGraph, tmp_path: Path
) -> None:
    masks = source(write_masks(tmp_path / 'released.mask', kept)).select(resnet50, Context())
    assert resnet50.cost(masks).macs == macs


def test_masks_of_the_network_that_was_not_released_are_refused(
    resnet50: ChannelGraph, tmp_path: Path
) -> None:
    # The first layers of flops50.mask, and how many channels they have there.
    path = write_masks(
        tmp_path / 'flops50.mask',
        {'s4.b1.f.a_bn': 509, 's1.b1.f.c_bn': 188},
        {'s4.b1.f.a_bn': 510, 's1.b1.f.c_bn': 238},
    )
    words = r"'backbone\.layer4\.0\.bn1' has 510 entries; the layer has 512 .* other widths; if it"
    with pytest.raises(MaskError, match=words):
        source(path).select(resnet50, Context())


def test_the_stages_are_those_of_the_scripts() -> None:
    config = Config.fromfile(RECIPE)
    assert [stage.type for stage in config.stages] == [
        'Train', 'Train', 'SelectMask', 'Rewind', 'Train', 'SelectMask', 'Prune', 'Train', 'Report',
    ]  # fmt: skip
    baseline, push, select, _, silence, again, _, finetune, _ = config.stages
    assert 'regularizer' not in baseline
    for stage, kind in ((push, 'GlobalSparsity'), (silence, 'MaskSparsity')):
        assert stage.regularizer == dict(type=kind, strength=5e-4)
    assert select.source == again.source
    assert (select.source.reduction, select.source.budget.value) == ('vote', 0.01)
    assert finetune.optim_wrapper.optimizer.lr == 5e-4
    # Every training has the schedule of the YAML files that the scripts name.
    assert not any({'epochs', 'param_scheduler'} & stage.keys() for stage in config.stages)
    assert config.train_cfg.max_epochs == 100
    assert config.param_scheduler.milestones == [30, 60, 90]
    steps = [step.type for step in config.train_dataloader.dataset.pipeline]
    assert steps.index('Lighting') == len(steps) - 2


@pytest.mark.slow
def test_it_starts_from_a_checkpoint_of_the_authors_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_imagenet(tmp_path / 'data' / 'imagenet')
    masks = tmp_path / 'data' / 'masksparsity' / 'lambda_0.0002_th-0.001_flops70.mask'
    masks.parent.mkdir()
    write_masks(masks, FLOPS70)
    checkpoint = {'epoch': 99, 'model_state': PyclsResNet().state_dict(), 'optimizer_state': {}}
    torch.save(checkpoint, tmp_path / 'model_epoch_0100.pyth')
    monkeypatch.chdir(tmp_path)
    # As in docs/masksparsity.md.
    weights = ['--load-from', 'model_epoch_0100.pyth', '--rename', 'pycls->mmpretrain']
    options = ['--cfg-options', 'stages.0.type=Evaluate']
    assert prune(FROM_MASK, tmp_path / 'run', '--plan', *weights, *options) == 0
    assert 'load_from: 320 weights' in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize('config', [RECIPE, FROM_MASK], ids=['recipe', 'from_mask'])
def test_it_runs_unchanged_but_for_its_size(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_imagenet(tmp_path / 'data' / 'imagenet')
    monkeypatch.chdir(tmp_path)
    run = tmp_path / 'run'
    options = shrunk(config.name)
    if config == RECIPE:
        options += [f'stages.{number}.source.budget.value=0.99' for number in (2, 5)]
    else:
        # The file is for 8 times as many channels.
        kept = {layer: max(count // 8, 1) for layer, count in uniform().items()}
        widths = {layer: width_of(layer) // 8 for layer in kept}
        path = write_masks(tmp_path / 'eighth.mask', kept, widths)
        options += [f'stages.1.source.path={path}', 'stages.3.source.budget.value=0.99']
    assert prune(config, run, '--cfg-options', *options) == 0
    rows = summary(run)['rows']
    assert [row['name'] for row in rows] == ['baseline', 'sparse', 'pruned', 'finetuned']
    assert rows[-1]['macs'] < rows[0]['macs']
    pruned = Config.fromfile(run / 'pruned_config.py')
    pruned.work_dir = str(tmp_path / 'evaluation')
    metrics = Runner.from_cfg(pruned).test()
    assert metrics['accuracy/top1'] == rows[-1]['accuracy']
