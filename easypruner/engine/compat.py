"""Fixes for faults of the OpenMMLab packages, and filters for their irrelevant warnings."""

from __future__ import annotations

import functools
import io
import logging
import warnings
from typing import Any

import numpy as np
from mmengine.utils import ProgressBar
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
    from torchvision.transforms.functional import adjust_hue as torchvision_hue

    original = mmcv.adjust_hue

    def adjust_hue(img: Any, hue_factor: float, backend: str | None = None) -> Any:
        if hue_factor >= 0 or int(hue_factor * 255) == 0:
            return original(img, max(hue_factor, 0.0), backend)
        rgb = Image.fromarray(np.asarray(img, dtype=np.uint8)[..., ::-1])
        shifted = np.asarray(torchvision_hue(rgb, hue_factor))
        return np.ascontiguousarray(shifted[..., ::-1]).astype(img.dtype)

    mmcv.adjust_hue = adjust_hue


def quiet(logger: logging.Logger) -> None:
    """Print only errors to the console. The log file still gets everything.

    MMEngine's own progress bars, such as that of ``PreciseBNHook``, print to no file any more.
    """
    for handler in logger.handlers:
        if type(handler) is logging.StreamHandler:
            handler.setLevel(logging.ERROR)
    start = ProgressBar.__init__
    start.__defaults__ = (*start.__defaults__[:-1], _Nowhere())


class _Nowhere(io.TextIOBase):
    """A text file that keeps nothing."""

    def write(self, text: str) -> int:
        return len(text)
