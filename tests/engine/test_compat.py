"""Fixes for faults of other packages."""

from __future__ import annotations

import colorsys
import logging
import sys

import mmcv
import numpy as np
import pytest
from mmengine.utils import ProgressBar
from mmpretrain.datasets.transforms import ColorJitter

from easypruner.engine.compat import prepare, quiet


@pytest.fixture(autouse=True)
def prepared() -> None:
    prepare()


@pytest.mark.parametrize('dtype', [np.uint8, np.float32])
@pytest.mark.parametrize('factor', [-0.5, -0.3, -0.1, -0.001, 0.0, 0.2, 0.5])
def test_hue_is_shifted_in_both_directions(factor: float, dtype: type) -> None:
    colour = np.array([40, 90, 200])  # blue, green, red
    image = np.broadcast_to(colour, (4, 4, 3)).astype(dtype)
    turned = mmcv.adjust_hue(image, factor, backend='cv2')
    assert turned.dtype == dtype
    hue, saturation, value = colorsys.rgb_to_hsv(*(colour[::-1] / 255))
    expected = np.array(colorsys.hsv_to_rgb((hue + factor) % 1, saturation, value))[::-1] * 255
    np.testing.assert_allclose(turned[0, 0], expected, atol=5)


def test_jitter_of_every_hue_runs() -> None:
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    jitter = ColorJitter(hue=0.5)
    for _ in range(20):
        assert jitter(dict(img=image))['img'].shape == image.shape


def test_quiet_bars_print_nothing(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    start = ProgressBar.__init__
    monkeypatch.setattr(start, '__defaults__', (*start.__defaults__[:-1], sys.stdout))
    ProgressBar(2).update()
    assert '1/2' in capfd.readouterr().out
    quiet(logging.getLogger('quiet'))
    ProgressBar(2).update()
    assert capfd.readouterr().out == ''
