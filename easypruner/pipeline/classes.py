"""The numbers of classes of a data set and of a model, which have to be the same."""

from __future__ import annotations

from typing import Any

from torch import nn

from easypruner.errors import Mistakes

_NAMES = ('num_classes', 'num_labels')


def check_classes(dataset: Any, name: str, model: nn.Module, mistakes: Mistakes) -> None:
    """Add a mistake if a data set has another number of classes than the model, if both are known.

    Args:
        dataset: the data set of a data loader.
        name: the name of the data loader.
        model: the network.
        mistakes: gets the mistake.
    """
    meta = getattr(dataset, 'metainfo', None)
    classes = meta.get('classes') if isinstance(meta, dict) else None
    outputs = model_classes(model)
    if not isinstance(classes, list | tuple) or outputs is None or len(classes) == outputs:
        return
    mistakes.add(
        f'the data set has {len(classes)} classes, but the {type(model).__name__} has {outputs}; '
        'correct the folder of the data, or num_classes of the model (in most models '
        f'model.head.num_classes={len(classes)}) and of data_preprocessor',
        name,
    )


def model_classes(model: nn.Module) -> int | None:
    """Return the number of classes of a classifier; None if it does not say it.

    The classifiers of mmpretrain have it in their head, VGG in its backbone. Those of timm and of
    Hugging Face are inside of a wrapper.
    """
    parts = [getattr(model, part, None) for part in ('head', 'backbone', 'model')]
    for part in (parts[0], parts[2], model, parts[1]):
        for holder in (part, getattr(part, 'config', None)):
            for name in _NAMES:
                found = getattr(holder, name, None)
                if isinstance(found, int) and not isinstance(found, bool) and found > 0:
                    return found
    return None
