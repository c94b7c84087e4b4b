"""Options that make the shipped configs of large networks run in seconds."""

from __future__ import annotations

_LOADERS = tuple(
    f'{split}_dataloader.{setting}'
    for split in ('train', 'val')
    for setting in ('batch_size=8', 'num_workers=0', 'persistent_workers=False',
                    'dataset.indices=24')
)  # fmt: skip
_IMAGENET = (
    'train_dataloader.dataset.pipeline.1.scale=64',
    'val_dataloader.dataset.pipeline.1.scale=72',
    'val_dataloader.dataset.pipeline.2.crop_size=64',
)
_MODELS = {
    'r50': ('stem_channels=8', 'base_channels=8'),
    'r56': ('depth=8',),
    'r110': ('depth=8',),
    'vgg16bn': ('depth=11',),
    'mobilenetv2': ('widen_factor=0.1',),
}


def shrunk(name: str) -> list[str]:
    """Return the options for a config, by its name ``strategy_model_data``."""
    words = name.removesuffix('.py').split('_')
    (model,) = (word for word in words if word in _MODELS)
    options = ['train_cfg.max_epochs=1', *_LOADERS]
    options += [f'model.backbone.{setting}' for setting in _MODELS[model]]
    if 'in1k' in words:
        options += _IMAGENET
    if model == 'r50':
        options.append('model.head.in_channels=256')
    return options
