"""What today's versions of the OpenMMLab packages need to run well together."""

from __future__ import annotations

import logging
import warnings
from typing import Any

_done: list[bool] = []

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
    # MMEngine builds schedulers in an order of its own, and steps them in the right one.
    'Detected call of `scheduler.step',
)


def prepare() -> None:
    """Silence known noise and mend known faults; importing mmpretrain takes seconds, once.

    The mend: negative hues make ``ColorJitter`` overflow under NumPy 2.
    """
    if _done:
        return
    for pattern in _NOISE:
        warnings.filterwarnings('ignore', message=f'.*{pattern}.*')
    import mmpretrain  # noqa: F401 - registers the models, data sets and metrics

    _mend_hue()
    _done.append(True)


def _mend_hue() -> None:
    import mmcv

    original = mmcv.adjust_hue

    def adjust_hue(img: Any, hue_factor: float, backend: str | None = None) -> Any:
        if hue_factor >= 0 or int(hue_factor * 255) == 0:
            return original(img, max(hue_factor, 0.0), backend)
        return _turn_hue(img, int(hue_factor * 255) % 256)

    mmcv.adjust_hue = adjust_hue


def _turn_hue(img: Any, steps: int) -> Any:
    """Turn the hue of a BGR image by ``steps`` of the 256 that make a full circle."""
    import numpy as np
    from PIL import Image

    rgb = np.asarray(img, dtype=np.uint8)[..., ::-1]
    hue, saturation, value = Image.fromarray(rgb).convert('HSV').split()
    turned = Image.fromarray(((np.asarray(hue, dtype=np.int64) + steps) % 256).astype(np.uint8))
    image = Image.merge('HSV', (turned, saturation, value)).convert('RGB')
    return np.ascontiguousarray(np.asarray(image)[..., ::-1]).astype(img.dtype)


def quiet(logger: logging.Logger) -> None:
    """Let warnings and errors alone through to the console; the log file keeps everything."""
    for handler in logger.handlers:
        if isinstance(handler, logging.StreamHandler) and not isinstance(
            handler, logging.FileHandler
        ):
            handler.setLevel(logging.ERROR)
