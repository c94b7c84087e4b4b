"""Held-out samples: each sample of a data set is in one of the two parts."""

from __future__ import annotations

import numpy as np

from easypruner.datasets import Digits, HeldOut


def test_the_parts_are_the_data_set() -> None:
    config = dict(type='easypruner.Digits', split='val')
    whole = Digits(split='val')
    rest, held = HeldOut(config, held=False), HeldOut(config, held=True)
    assert len(held) == round(0.2 * len(whole)) and rest.metainfo == whole.metainfo
    assert sorted(rest.indices + held.indices) == list(range(len(whole)))
    for part in (rest, held):
        for place in (0, len(part) - 1):
            expected = whole[part.indices[place]]
            assert np.array_equal(part[place]['img'], expected['img'])
            assert part.get_data_info(place)['gt_label'] == expected['gt_label']
