"""Bad batches: a batch is read again after a failure, to tell whether its data are at fault."""

from __future__ import annotations

import itertools
from typing import Any

from easypruner.base.finite import not_finite_in
from easypruner.base.modules import unwrapped
from easypruner.base.nested import tensors_in
from easypruner.engine.hooks import EpochSeedHook


def describe_bad_batch(runner: Any, number: int) -> str:
    """Return what is wrong with a batch of the current epoch, or ''.

    Only the samples of this batch are read again.

    Args:
        runner: the runner of the stage.
        number: the number of the batch in the epoch, from 0.
    """
    try:
        return _describe(runner, number)
    except Exception:
        return ''


def _describe(runner: Any, number: int) -> str:
    loader = runner.train_dataloader
    for hook in runner.hooks:
        if isinstance(hook, EpochSeedHook):
            # The sampler may draw the order of samples again.
            hook.before_train_epoch(runner)
    indices = next(itertools.islice(iter(loader.batch_sampler), number, None))
    samples = [loader.dataset[index] for index in indices]
    for index, sample in zip(indices, samples, strict=True):
        for path in _bad(sample):
            return (
                f'sample {index} of the data set of train_dataloader is not finite in {path}; '
                'correct or leave out this sample'
            )
    batch = loader.collate_fn(samples)
    model: Any = unwrapped(runner.model)
    inputs = model.data_preprocessor(batch, True)
    for path in _bad(inputs):
        return (
            f'the data_preprocessor makes values in {path} that are not finite; check its mean and '
            'std'
        )
    return ''


def _bad(value: Any) -> list[str]:
    """Return the paths of tensors that are not finite."""
    return not_finite_in(dict(tensors_in(value)))
