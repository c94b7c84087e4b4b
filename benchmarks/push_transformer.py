"""The part ``transformer`` of benchmarks/push.py: networks with layer norms, under AdamW."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from push_recipes import select
from push_runs import DIGITS, accuracies, run

_VIT: dict[str, Any] = {
    'model': dict(
        backbone=dict(
            _delete_=True,
            type='VisionTransformer',
            arch=dict(embed_dims=64, num_layers=4, num_heads=4, feedforward_channels=256),
            img_size=8,
            patch_size=2,
            in_channels=1,
        ),
        neck=None,
        head=dict(
            _delete_=True,
            type='VisionTransformerClsHead',
            num_classes=10,
            in_channels=64,
            loss=dict(type='CrossEntropyLoss', loss_weight=1.0),
        ),
    ),
    'optim_wrapper': dict(
        optimizer=dict(_delete_=True, type='AdamW', lr=2e-3, weight_decay=0.05),
        clip_grad=dict(max_norm=1.0),
    ),
}
_STREAM = 'backbone.patch_embed.projection'
"""The group of the channels that all blocks add to."""
_CONVNEXT: dict[str, Any] = {
    'model': dict(
        backbone=dict(
            _delete_=True,
            type='ConvNeXt',
            arch=dict(depths=[2, 2], channels=[32, 64]),
            in_channels=1,
            stem_patch_size=2,
            layer_scale_init_value=0.0,
            out_indices=[1],
        ),
        neck=None,
    ),
    'optim_wrapper': _VIT['optim_wrapper'],
}
_STREAMS = ['backbone.downsample_layers.0.0', 'backbone.downsample_layers.1.1']
"""The groups of the channels that all blocks of a stage of the ConvNeXt add to."""


@dataclass(frozen=True)
class _Family:
    """A network and the choices of groups to prune.

    Attributes:
        config: the keys of its config.
        epochs: the numbers of epochs of its training, and of the sparsity stage.
        graphs: name of a result -> the key ``graph`` of the config.
        push: arguments of MaskSparsity.
    """

    config: Mapping[str, Any]
    epochs: tuple[int, int]
    graphs: Mapping[str, Mapping[str, Any]]
    push: Mapping[str, Any]


_FAMILIES = {
    '': _Family(
        _VIT,
        (30, 20),
        {
            'everything': dict(),
            'without_stream': dict(ignore=[_STREAM]),
            'heads_without_stream': dict(ignore=[_STREAM], attention='heads'),
        },
        dict(),
    ),
    'convnext_': _Family(
        _CONVNEXT,
        (12, 12),
        {
            'everything': dict(),
            'streams': dict(ignore=['*.pointwise_conv1']),
            'without_streams': dict(ignore=_STREAMS),
        },
        dict(scales='layer_norm'),
    ),
}


def results_of(folder: Path) -> dict[str, dict[str, float]]:
    """Return name -> row -> accuracy for each choice of groups, in percent."""
    return {
        f'{prefix}{name}': rows
        for prefix, family in _FAMILIES.items()
        for name, rows in _family(family, folder, prefix).items()
    }


def _family(family: _Family, folder: Path, prefix: str) -> dict[str, dict[str, float]]:
    first, second = family.epochs
    train = dict(type='Train', name='baseline', epochs=first, row='baseline')
    stages = [train, dict(type='Report')]
    baseline = run({**family.config, 'stages': stages}, DIGITS, folder / f'{prefix}baseline')
    push = dict(type='MaskSparsity', without_scales='weights', strength=dict(until=1e-3))
    push |= family.push
    stages = [
        select('L1Norm', 0.6),
        dict(type='Train', name='sparse', epochs=second, row='sparse', regularizer=push),
        dict(type='Prune'),
        dict(type='Report'),
    ]
    weights = str((next(baseline.glob('*_baseline')) / 'weights.pth').resolve())
    found = {}
    for name, chosen in family.graphs.items():
        graph = {**chosen, 'limits': {'*': dict(max_removed=0.9)}}
        config = {**family.config, 'graph': graph, 'load_from': weights, 'stages': stages}
        rows = accuracies(run(config, DIGITS, folder / f'{prefix}{name}'))
        found[name] = rows | {'baseline': accuracies(baseline)['baseline']}
    return found
