"""LayerTimes: what is measured, what is read from the file, and what a damaged file does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from easypruner.runtimes.layer_times import LayerTimes
from easypruner.runtimes.layers import LayerForm, Widths
from tests.helpers.clocked import Clock, Clocked, use_clock

CPU = torch.device('cpu')
FORM = LayerForm('Linear', (1, 10))
NARROW, MIDDLE, BROAD = ((FORM, Widths(8, n)) for n in (4, 8, 16))
SECONDS = {NARROW: 320e-9, MIDDLE: 640e-9, BROAD: 1280e-9}


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Clock:
    return use_clock(monkeypatch, tmp_path / 'cache')


def times(**arguments: Any) -> LayerTimes:
    return LayerTimes(Clocked(**arguments), CPU)


def test_layers_are_measured_once_and_without_the_call(clock: Clock) -> None:
    assert times(call=1e-6).seconds([NARROW, BROAD, NARROW]) == pytest.approx(
        {NARROW: 320e-9, BROAD: 1280e-9}
    )
    loaded = clock.layers
    assert times(call=1e-6).seconds([BROAD]) == pytest.approx({BROAD: 1280e-9})
    assert clock.layers == loaded
    assert times(call=1e-6).seconds([BROAD, MIDDLE])[MIDDLE] == pytest.approx(640e-9)
    assert clock.layers == loaded + 2, 'the reference is measured with the layer'


def test_a_machine_that_became_slower_changes_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    times().seconds([NARROW])
    taking = Clocked._taking
    monkeypatch.setattr(Clocked, '_taking', lambda self, seconds: taking(self, 3 * seconds))
    assert times().seconds([NARROW, BROAD]) == pytest.approx({NARROW: 320e-9, BROAD: 1280e-9})


def test_other_arguments_of_the_runtime_have_another_file(clock: Clock) -> None:
    one, two = times(), times(threads=2)
    assert one.path != two.path and (one.clock, two.clock) == ('cpu', 'wall')
    one.seconds([NARROW])
    assert not two.path.exists()


@pytest.mark.parametrize('damage', ['text', 'list', 'format', 'entries', 'number', 'hash', 'type'])
def test_a_damaged_entry_is_measured_again(damage: str, clock: Clock) -> None:
    first = times()
    first.seconds(SECONDS)
    content: Any = json.loads(first.path.read_text())
    key = FORM.key(NARROW[1])
    if damage == 'format':
        content['format'] = 'another'
    elif damage == 'entries':
        content['entries'] = 3
    elif damage == 'number':
        content['entries'][key]['seconds'] *= 2
    elif damage == 'hash':
        del content['entries'][key]['hash']
    elif damage == 'type':
        content['entries'][key] = [1]
    text = {'text': '{', 'list': '[]'}.get(damage, json.dumps(content))
    first.path.write_text(text)
    loaded = clock.layers
    assert times().seconds(SECONDS) == pytest.approx(SECONDS)
    assert clock.layers > loaded
    loaded = clock.layers
    assert times().seconds(SECONDS) == pytest.approx(SECONDS)
    assert clock.layers == loaded


def test_what_another_process_has_written_stays(clock: Clock) -> None:
    one, other = times(), times()
    one.seconds([NARROW])
    other.seconds([MIDDLE])
    one.seconds([BROAD])
    loaded = clock.layers
    times().seconds(SECONDS)
    assert clock.layers == loaded


def test_without_a_folder_to_write_to_nothing_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / 'file').write_text('')
    monkeypatch.setenv('EASYPRUNER_CACHE', str(tmp_path / 'file' / 'cache'))
    assert times().seconds([NARROW]) == pytest.approx({NARROW: 320e-9})


def test_a_layer_that_the_runtime_cannot_express_is_left_out() -> None:
    runtime = Clocked()
    runtime.refused = nn.ConvTranspose2d
    arguments = (('kernel_size', (1, 1)), ('stride', (1, 1)))
    up = LayerForm('ConvTranspose2d', (1, 4, 4), arguments), Widths(2, 3)
    found = LayerTimes(runtime, CPU).seconds([NARROW, up, BROAD])
    assert found == pytest.approx({NARROW: 320e-9, BROAD: 1280e-9})


def test_random_numbers_stay_as_they_were() -> None:
    before = torch.get_rng_state()
    times().seconds(SECONDS)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_key_names_the_layer() -> None:
    layer = nn.Conv2d(8, 16, 3, stride=2, padding=1, groups=4)
    form = LayerForm.of(layer, torch.rand(1, 8, 10, 12))
    assert form is not None
    assert form.key(Widths(8, 16, 4)) == (
        'Conv2d 8->16 groups=4 on 1x10x12 kernel_size=3x3 stride=2x2 padding=1x1 dilation=1x1'
    )
    built, inputs = form.build(Widths(4, 8, 2))
    assert built(inputs).shape == (1, 8, 5, 6)
    assert LayerForm.of(nn.BatchNorm2d(8), inputs) is None
