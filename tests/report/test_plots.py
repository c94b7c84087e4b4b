"""The pictures show their bars, counts and names, and are valid PNG files."""

from __future__ import annotations

import struct
import zlib
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.container import BarContainer

from easypruner.report.plots import (
    Point,
    draw_accuracy,
    draw_channels,
    draw_scales,
    save_figure,
)
from easypruner.report.scales import LayerChannels, Scales


def png_size(path: Path) -> tuple[int, int]:
    """Check the checksums of a PNG's chunks and return its width and height."""
    data = path.read_bytes()
    assert data[:8] == b'\x89PNG\r\n\x1a\n'
    offset, kinds = 8, []
    while offset < len(data):
        (length,) = struct.unpack_from('>I', data, offset)
        chunk = data[offset + 4 : offset + 8 + length]
        assert struct.unpack_from('>I', data, offset + 8 + length)[0] == zlib.crc32(chunk)
        kinds.append(chunk[:4])
        offset += 12 + length
    assert (kinds[0], kinds[-1]) == (b'IHDR', b'IEND')
    return struct.unpack_from('>II', data, 16)


@pytest.mark.parametrize('count', [1, 7, 110])
def test_every_layer_has_its_two_bars(count: int, tmp_path: Path) -> None:
    layers = [LayerChannels(f'layer{i}', kept=i + 1, removed=count - i) for i in range(count)]
    figure = draw_channels(layers)
    (axes,) = figure.axes
    kept, removed = (c for c in axes.containers if isinstance(c, BarContainer))
    assert [bar.get_width() for bar in kept] == [layer.kept for layer in layers]
    assert [bar.get_width() for bar in removed] == [layer.removed for layer in layers]
    assert [bar.get_x() for bar in removed] == [layer.kept for layer in layers]
    assert [label.get_text() for label in axes.get_yticklabels()] == [x.name for x in layers]
    save_figure(figure, tmp_path / 'channels.png')
    width, height = png_size(tmp_path / 'channels.png')
    assert height / count >= 20, 'too few pixels for a layer name'
    assert width == 1200


def test_layer_names_do_not_overlap() -> None:
    figure = draw_channels([LayerChannels(f'layer{i}', 8, 8) for i in range(80)])
    figure.draw_without_rendering()
    boxes = [label.get_window_extent() for label in figure.axes[0].get_yticklabels()]
    assert all(upper.y0 >= lower.y1 for upper, lower in pairwise(boxes))


@pytest.mark.slow
def test_a_very_deep_network_still_fits_an_image() -> None:
    figure = draw_channels([LayerChannels(str(i), 1, 1) for i in range(2300)])
    assert figure.get_figheight() * 150 < 2**16, 'Agg draws no more'


def test_histograms_count_every_scale_once() -> None:
    rng = np.random.default_rng(0)
    before = Scales(rng.uniform(0.1, 1, 50), rng.uniform(0.01, 0.1, 30))
    after = Scales(rng.uniform(0.1, 1, 50), np.r_[np.zeros(5), rng.uniform(1e-7, 1e-5, 25)])
    figure = draw_scales(before, after)
    for axes, scales in zip(figure.axes, (before, after), strict=True):
        kept, removed = axes.containers
        assert sum(bar.get_height() for bar in kept) == scales.kept.size
        assert sum(bar.get_height() for bar in removed) == scales.removed.size
        assert axes.get_xscale() == 'log'
    left, right = figure.axes
    assert left.get_xlim() == right.get_xlim()
    assert left.get_ylim() == right.get_ylim()
    assert '0 drawn at' in right.get_xlabel()
    assert '0 drawn at' not in left.get_xlabel()


@pytest.mark.parametrize('values', [np.empty(0), np.zeros(3), np.array([1e-12]), np.array([50.0])])
def test_extreme_scales_can_be_drawn(values: np.ndarray, tmp_path: Path) -> None:
    scales = Scales(values, values)
    figure = draw_scales(scales, scales)
    drawn = sum(bar.get_height() for bars in figure.axes[0].containers for bar in bars)
    assert drawn == 2 * values.size
    save_figure(figure, tmp_path / 'scales.png')
    png_size(tmp_path / 'scales.png')


def test_legend_lists_every_line_best_first() -> None:
    points = [
        Point('_hidden?', (1e6,), (80.0,)),
        Point('cost $x$', (1e6, 1.1e6), (90.0, 91.0)),
        *(Point(f'p{i}', (1e6,), (70.0 - i,)) for i in range(10)),
    ]
    figure = draw_accuracy(points, Point('baseline', (2e6,), (95.0,)))
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts[:3] == ['95.00   baseline', '90.50 ± 0.71   cost $x$', '80.00   _hidden?']
    assert len(texts) == 13


def test_lines_are_distinguished_without_colour() -> None:
    figure = draw_accuracy([Point(f'p{i}', (1e6,), (90.0 - i,)) for i in range(40)])
    looks = {(line[0].get_marker(), line[0].get_color()) for line in figure.axes[0].containers}
    markers = [line[0].get_marker() for line in figure.axes[0].containers][:7]
    assert len(looks) == 40
    assert len(set(markers)) == 7


@pytest.mark.filterwarnings('error')
def test_many_lines_of_long_names_leave_room_for_the_picture(tmp_path: Path) -> None:
    points = [Point('x' * 200 + f' {n}', (1e6, 1.1e6), (90.0 - n, 91.0)) for n in range(60)]
    figure = draw_accuracy(points, None, 'ms in ' + 'y' * 200)
    save_figure(figure, tmp_path / 'accuracy.png')
    assert figure.axes[0].get_position().width > 0.3
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert len(set(texts)) == 60
    renderer = FigureCanvasAgg(figure).get_renderer()
    assert figure.legends[0].get_window_extent(renderer).y0 >= 0


def test_names_are_not_parsed_as_mathematics(tmp_path: Path) -> None:
    name = '$\\nosuchcommand$'
    save_figure(draw_accuracy([Point(name, (1.0,), (2.0,))]), tmp_path / 'accuracy.png')
    save_figure(draw_channels([LayerChannels(name, 1, 1)]), tmp_path / 'channels.png')
    assert len(list(tmp_path.iterdir())) == 2


def test_pictures_leave_no_global_state(tmp_path: Path) -> None:
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    save_figure(draw_accuracy([Point('a', (1.0,), (2.0,))]), tmp_path / 'a.png')
    assert plt.get_fignums() == before


def test_failed_drawing_keeps_the_old_picture(tmp_path: Path) -> None:
    path = tmp_path / 'a.png'
    save_figure(draw_accuracy([Point('a', (1.0,), (2.0,))]), path)
    old = path.read_bytes()
    broken = draw_accuracy([Point('a', (1.0,), (2.0,))])
    broken.axes[0].set_title('$\\nosuchcommand$')
    with pytest.raises(ValueError, match='nosuchcommand'):
        save_figure(broken, path)
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]
