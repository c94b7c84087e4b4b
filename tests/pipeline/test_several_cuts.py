"""Several cuts in one run: limits of groups, masks, strengths, budgets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from easypruner import Masks
from easypruner.engine.checkpoint import read_weights
from easypruner.graph import ArchitectureRecord
from tests.helpers.tiny import prune, summary, tiny_config, write_config

Content = dict[str, Any]
GROUP = 'backbone.stages.0.0.conv1'
"""Of four units, the inside of the first block."""


def run(folder: Path, *stages: Content, **changes: Any) -> Path:
    """Run stages after a short training, and return the work directory."""
    baseline = dict(type='Train', name='baseline', epochs=1, row='baseline')
    content = tiny_config(stages=[baseline, *stages, dict(type='Report')], **changes)
    assert prune(write_config(folder, content), folder / 'run') == 0
    return folder / 'run'


def select(**budget: Any) -> Content:
    return dict(type='SelectMask', source=dict(type='L1Norm', budget=budget))


def steps(number: int, **budget: Any) -> Content:
    return dict(type='Iterative', steps=number, each=[select(**budget), dict(type='Prune')])


def one_channel(**keys: Any) -> Content:
    """A budget that leaves a single channel inside the first block."""
    return select(type='Ratio', keep={GROUP: 0.0}) | keys


def shapes(work_dir: Path) -> dict[str, torch.Size]:
    return {name: t.shape for name, t in read_weights(work_dir / 'pruned.pth').items()}


@pytest.mark.in_ci
def test_a_largest_share_refers_to_the_units_of_the_original(tmp_path: Path) -> None:
    limits = dict(graph=dict(limits=dict(max_removed=0.25)))
    budget = dict(type='Ratio', keep=0.3, scope='layer')
    at_once = run(tmp_path / 'once', select(**budget), dict(type='Prune'), **limits)
    in_steps = run(tmp_path / 'steps', steps(3, **budget), **limits)
    assert shapes(in_steps) == shapes(at_once)
    masks = Masks.load(at_once / 'masks.safetensors')
    assert {masks.kept(name) / mask.numel() for name, mask in masks.items()} == {0.75}


@pytest.mark.in_ci
def test_the_masks_are_those_of_all_cuts_over_the_units_of_the_original(tmp_path: Path) -> None:
    in_steps = run(tmp_path / 'steps', steps(3, type='Macs', keep=0.4))
    masks = in_steps / 'masks.safetensors'
    again = run(tmp_path / 'again', dict(type='LoadMask', path=str(masks)), dict(type='Prune'))
    assert shapes(again) == shapes(in_steps)
    one, other = (
        ArchitectureRecord.load(folder / 'architecture.json') for folder in (in_steps, again)
    )
    assert one.tensors == other.tensors and one.groups == other.groups
    assert (in_steps / 'channels.png').is_file()


def test_the_scales_of_all_cuts_are_reported(tmp_path: Path) -> None:
    """Their number is the number of channels that batch norms have lost at the end."""
    work_dir = run(tmp_path, steps(2, type='Ratio', keep=0.5, scope='layer'))
    before, after = read_weights(work_dir / 'initial.pth'), shapes(work_dir)
    scales = [name.replace('running_var', 'weight') for name in before if 'running_var' in name]
    lost = [before[name].shape[0] - after[name][0] for name in scales]
    assert summary(work_dir)['scales']['count'] == sum(lost) > 0


def test_limits_may_name_a_group_that_comes_to_a_single_channel(tmp_path: Path) -> None:
    limits = dict(graph=dict(limits={GROUP: dict(min_units=1)}))
    work_dir = run(tmp_path, one_channel(), dict(type='Prune'), dict(type='Calibrate'), **limits)
    assert shapes(work_dir)[f'{GROUP}.weight'][0] == 1


def test_strengths_may_name_a_group_that_came_to_a_single_channel(tmp_path: Path) -> None:
    regularizer = dict(type='GlobalSparsity', strength=1e-4, group_strengths={GROUP: 2.0})
    train = dict(type='Train', epochs=1, regularizer=regularizer)
    work_dir = run(tmp_path, one_channel(), dict(type='Prune'), train)
    assert shapes(work_dir)[f'{GROUP}.weight'][0] == 1


def test_masks_from_a_file_have_no_budget_of_an_earlier_selection(tmp_path: Path) -> None:
    masks = tmp_path / 'masks.safetensors'
    Masks({GROUP: torch.tensor([True, True, False, False])}).save(masks)
    load = dict(type='LoadMask', path=str(masks))
    work_dir = run(tmp_path, select(type='Macs', keep=0.9), load, dict(type='Prune'))
    assert summary(work_dir)['budget'] is None
