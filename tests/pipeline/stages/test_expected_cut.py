"""What a push leaves behind: zeros whose cut costs nothing, or a warning of what it will cost."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from easypruner_plugins.mask_sparsity import MaskSparsity
from torch import Tensor, nn

import easypruner
from easypruner import Masks
from easypruner.engine.checkpoint import read_weights
from easypruner.pipeline.stages import train
from tests.helpers.tiny import original_model, prune, summary, tiny_config, write_config

Content = dict[str, Any]
ADAMW = dict(optimizer=dict(type='AdamW', lr=0.01))


def pushed(regularizer: Content, rows: bool = True, epochs: int = 4, **changes: Any) -> Content:
    """Return a config that pushes channels for some epochs, cuts them, and trains again."""
    source = dict(type='BNScale', budget=dict(type='Macs', keep=0.5))
    names = iter(['baseline', 'sparse', 'pruned', 'calibrated', 'finetuned'])

    def row() -> Content:
        return dict(row=next(names) if rows else None)

    stages = [
        dict(type='Train', name='baseline', epochs=1, **row()),
        dict(type='SelectMask', source=source),
        dict(type='Train', name='pushed', epochs=epochs, regularizer=regularizer, **row()),
        dict(type='Prune', **row()),
        dict(type='Calibrate', batches=8, **row()),
        dict(type='Train', name='finetune', epochs=1, **row()),
    ]
    every_width = dict(limits=dict(round_to=1))
    stages += [dict(type='Report')] if rows else []
    return tiny_config(**dict(graph=every_width, stages=stages, **changes))


def ran(folder: Path, content: Content) -> Path:
    assert prune(write_config(folder, content), folder / 'run') == 0
    return folder / 'run'


def mask_sparsity(**arguments: Any) -> Content:
    return dict(type='MaskSparsity', strength=dict(reach=5.0)) | arguments


def removed(run: Path, part: str) -> Tensor:
    """Return the removed scales (``weight``) or biases of the network before the cut."""
    masks = Masks.load(run / 'masks.safetensors')
    graph = easypruner.trace(original_model(), torch.zeros(1, 1, 8, 8))
    weights = read_weights(run / '02_pushed' / 'weights.pth')
    return torch.cat([
        weights[name][~keep]
        for (name, _), keep in graph.keep(masks).items()
        if graph.operands[name] == f'batch_norm.{part}'
    ])  # fmt: skip


def warnings(run: Path) -> list[str]:
    return [text for text in summary(run)['warnings'] if 'removed norm scales' in text]


def logits(model: nn.Module, inputs: Tensor) -> Tensor:
    with torch.no_grad():
        return model.eval()(inputs, mode='tensor')


@pytest.mark.parametrize(
    ('regularizer', 'optim_wrapper'),
    [
        pytest.param(mask_sparsity(apply='proximal'), None, marks=pytest.mark.slow),
        (mask_sparsity(), ADAMW),
        (mask_sparsity(strength=dict(until=0.01)), None),
        pytest.param(mask_sparsity(strength=dict(until=0.01)), ADAMW, marks=pytest.mark.slow),
    ],
    ids=['SGD', 'AdamW', 'SGD until', 'AdamW until'],
)
def test_the_cut_after_a_proximal_push_costs_nothing(
    regularizer: Content, optim_wrapper: Content | None, tmp_path: Path
) -> None:
    changes = {} if optim_wrapper is None else dict(optim_wrapper=optim_wrapper)
    run = ran(tmp_path, pushed(regularizer, **changes))
    scales, biases = removed(run, 'weight'), removed(run, 'bias')
    assert len(scales) and len(biases)
    assert not scales.any()
    assert not biases.any()
    whole = original_model()
    whole.load_state_dict(read_weights(run / '02_pushed' / 'weights.pth'))
    cut = copy.deepcopy(whole)
    easypruner.prune(
        cut, Masks.load(run / 'masks.safetensors'), example_inputs=torch.zeros(1, 1, 8, 8)
    )
    inputs = torch.randn(16, 1, 8, 8)
    assert logits(whole, inputs).std() > 1e-3
    torch.testing.assert_close(logits(cut, inputs), logits(whole, inputs), rtol=1e-4, atol=1e-5)
    _, sparse, after, *_ = summary(run)['rows']
    assert sparse['accuracy'] == after['accuracy']
    assert warnings(run) == []


def test_a_gradient_leaves_biases_as_they_are(tmp_path: Path) -> None:
    run = ran(tmp_path, pushed(mask_sparsity(apply='gradient')))
    assert removed(run, 'bias').all()


def test_scales_that_stay_up_are_a_warning_with_their_count_and_the_cost(tmp_path: Path) -> None:
    run = ran(tmp_path, pushed(mask_sparsity(strength=0.02)))
    (text,) = warnings(run)
    scales, biases = removed(run, 'weight').abs(), removed(run, 'bias').abs()
    assert text.startswith(
        f'pushed: {int((scales > 0.01).sum())} of {len(scales)} removed norm scales are above 0.01 '
        f'(largest {float(scales.max()):.2g}) and {int((biases > 0.01).sum())} of {len(biases)} '
        f'removed norm biases are above 0.01 (largest {float(biases.max()):.2g}); '
    )
    found = re.search(r'accuracy from ([\d.]+) to ([\d.]+) %', text)
    assert found is not None
    _, sparse, cut, *_ = (row['accuracy'] for row in summary(run)['rows'])
    assert float(found[1]) == pytest.approx(sparse, abs=0.005)
    # With recalibrated batch norms it may be better than right after the cut.
    assert float(found[2]) >= cut - 0.005


@pytest.mark.parametrize(
    'optim_wrapper', [None, pytest.param(ADAMW, marks=pytest.mark.slow)], ids=['SGD', 'AdamW']
)
def test_a_weak_strength_is_told_early_and_the_strength_that_is_named_is_enough(
    optim_wrapper: Content | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = {} if optim_wrapper is None else dict(optim_wrapper=optim_wrapper)
    weak = mask_sparsity(strength=1e-4, apply='proximal')
    run = ran(tmp_path / 'weak', pushed(weak, epochs=10, **changes))
    early = [line for line in capsys.readouterr().out.splitlines() if 'the loss pulls' in line]
    assert early and early[0].startswith('  pushed: the strength of MaskSparsity is 0.0001')
    (text,) = warnings(run)
    named = re.search(r'expected a strength of at least ([\d.e-]+)', text)
    assert named is not None
    measured = json.loads((run / '02_pushed' / 'push.json').read_text())
    assert measured['strength'] == 1e-4 and measured['form'] == 'proximal'
    pulls = [entry['pull'] for entry in measured['pulls']]
    assert float(named[1]) >= 0.95 * max(pulls)
    enough = mask_sparsity(strength=float(named[1]), apply='proximal')
    run = ran(tmp_path / 'enough', pushed(enough, epochs=10, **changes))
    assert not removed(run, 'weight').any()
    assert not removed(run, 'bias').any()
    assert warnings(run) == []


def test_a_closed_loop_says_that_it_has_not_arrived(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MaskSparsity, 'shrink', lambda *_: None)
    run = ran(tmp_path, pushed(mask_sparsity(strength=dict(until=1e-4))))
    (text,) = [t for t in summary(run)['warnings'] if 'has not met until=0.0001' in t]
    assert text.startswith('pushed: MaskSparsity has not met')
    largest = max(float(removed(run, part).abs().max()) for part in ('weight', 'bias'))
    assert f'largest {largest:.2g}' in text


def test_without_an_accuracy_the_scales_are_counted(tmp_path: Path) -> None:
    evaluator = dict(type='SingleLabelMetric')
    content = pushed(mask_sparsity(strength=0.02), rows=False, val_evaluator=evaluator)
    run = ran(tmp_path, content)
    state = (run / '02_pushed' / 'state.json').read_text()
    assert 'removed norm scales are above 0.01' in state
    assert 'the cut will change the outputs' in state
    assert 'accuracy from' not in state


@pytest.mark.slow
def test_the_check_changes_no_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = pushed(mask_sparsity(strength=0.02))
    checked = ran(tmp_path / 'checked', content)
    monkeypatch.setattr(train, 'cut_warning', lambda *_: '')
    unchecked = ran(tmp_path / 'unchecked', content)
    assert warnings(checked) and not warnings(unchecked)
    paths = sorted(path.relative_to(checked) for path in checked.rglob('weights.pth'))
    assert len(paths) == 5
    for path in (*paths, Path('pruned.pth')):
        one, other = read_weights(checked / path), read_weights(unchecked / path)
        assert all(torch.equal(tensor, other[name]) for name, tensor in one.items()), path
    rows = [summary(run)['rows'] for run in (checked, unchecked)]
    assert rows[0] == rows[1]
