"""Fixes for faults of the OpenMMLab packages, and filters for their irrelevant warnings."""

from __future__ import annotations

import functools
import logging
import warnings
from typing import Any

import numpy as np
from PIL import Image

_NOISE = (
    'Fail to import ``MultiScaleDeformableAttention``',
    '"FileClient" will be deprecated',
    "'pin_memory' argument is set as true but no accelerator",
    'The prefix is not set in metric class',
    '"HardDiskBackend" is the alias of "LocalBackend"',
    'pkg_resources is deprecated',
    'Dataset .* has already been registered',
    '`torch.cuda.amp',
    'Overriding a previously registered kernel',
    # MMEngine builds schedulers before the first optimizer step, but steps them correctly.
    'Detected call of `scheduler.step',
)


@functools.cache
def prepare() -> None:
    """Import mmpretrain, filter irrelevant warnings and fix known faults.

    The fixed fault: under NumPy 2, ``ColorJitter`` overflows for a negative hue factor.
    """
    for pattern in _NOISE:
        warnings.filterwarnings('ignore', message=f'.*{pattern}.*')
    # These imports take seconds, and models of torchvision do not need them.
    import mmcv
    import mmpretrain  # noqa: F401 - registers the models, data sets and metrics

    original = mmcv.adjust_hue

    def adjust_hue(img: Any, hue_factor: float, backend: str | None = None) -> Any:
        if hue_factor >= 0 or int(hue_factor * 255) == 0:
            return original(img, max(hue_factor, 0.0), backend)
        return _shift_hue(img, int(hue_factor * 255) % 256)

    mmcv.adjust_hue = adjust_hue


def _shift_hue(img: Any, steps: int) -> Any:
    """Shift the hue of a BGR image by ``steps``, of which 256 are a full circle."""
    rgb = np.asarray(img, dtype=np.uint8)[..., ::-1]
    hue, saturation, value = Image.fromarray(rgb).convert('HSV').split()
    shifted = Image.fromarray(((np.asarray(hue, dtype=np.int64) + steps) % 256).astype(np.uint8))
    image = Image.merge('HSV', (shifted, saturation, value)).convert('RGB')
    return np.ascontiguousarray(np.asarray(image)[..., ::-1]).astype(img.dtype)


def quiet(logger: logging.Logger) -> None:
    """Print only errors to the console. The log file still gets everything."""
    for handler in logger.handlers:
        if isinstance(handler, logging.StreamHandler) and not isinstance(
            handler, logging.FileHandler
        ):
            handler.setLevel(logging.ERROR)
