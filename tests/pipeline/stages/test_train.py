"""Settings of a Train stage: schedulers, averages together with a push, lengths."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from easypruner.errors import Mistakes
from easypruner.pipeline.fingerprint import part_fingerprints
from easypruner.pipeline.preflight import expand
from easypruner.pipeline.stages import Train
from easypruner.plugins import load_plugins
from tests.helpers.tiny import prune, summary, tiny_config, write_config

Content = dict[str, Any]


def trained(**stage: Any) -> list[Content]:
    return [dict(type='Train', name='pushed', row='pushed', **stage), dict(type='Report')]


@pytest.mark.parametrize('several', [False, True])
def test_schedulers_of_a_stage_replace_those_of_the_config(several: bool, tmp_path: Path) -> None:
    """If merged, one would get the arguments of the other."""
    own: Any = dict(type='MultiStepLR', milestones=[1], gamma=0.5)
    own = [own, dict(type='LinearLR', start_factor=0.5, end=1)] if several else own
    content = tiny_config(
        stages=trained(epochs=2, param_scheduler=own),
        param_scheduler=dict(type='CosineAnnealingLR', eta_min=0.01, convert_to_iter_based=True),
    )
    assert prune(write_config(tmp_path, content), tmp_path / 'run') == 0


GRAD_DECAY = [
    dict(type='Train', name='baseline', epochs=1, row='baseline'),
    dict(type='SelectMask', source=dict(type='BNScale', budget=dict(type='Macs', keep=0.5))),
]


@pytest.mark.parametrize(
    ('ema', 'warns'),
    [
        pytest.param(0.0002, True, marks=pytest.mark.slow),
        (0.05, True),
        (0.5, False),
        pytest.param(None, False, marks=pytest.mark.slow),
    ],
)
def test_an_average_with_weights_from_before_the_push_is_a_warning(
    ema: float | None, warns: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With fifteen updates and 0.5, a hundredth of the weights from the middle remains."""
    stages = [*GRAD_DECAY, *trained(epochs=5, ema=ema, regularizer=dict(type='GradDecay'))]
    config = write_config(tmp_path, tiny_config(stages=stages))
    assert prune(config, tmp_path / 'run', '--plan') == 0
    assert ('of the averaged weights' in capsys.readouterr().out) == warns
    assert prune(config, tmp_path / 'run') == 0
    found = [w for w in summary(tmp_path / 'run')['warnings'] if 'of the averaged weights' in w]
    assert len(found) == warns


@pytest.mark.parametrize(
    ('reach', 'warns'), [(3.0, True), (6.0, False)]
)  # ln(100) is 4.6, which leaves a hundredth
@pytest.mark.parametrize(
    'regularizer', [dict(type='MaskSparsity', norm='l2'), dict(type='GReg', every=1)], ids=str
)
def test_penalties_that_shrink_need_an_exponent(
    regularizer: Content, reach: float, warns: bool, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    push = regularizer | dict(strength=dict(reach=reach))
    stages = [*GRAD_DECAY, *trained(epochs=20, regularizer=push)]
    stages.insert(-1, dict(type='Prune'))
    config = write_config(tmp_path, tiny_config(stages=stages))
    assert prune(config, tmp_path / 'run', '--plan') == 0
    assert ('it needs at least 4.6' in capsys.readouterr().out) == warns


def test_the_length_of_training_distinguishes_runs(tmp_path: Path) -> None:
    from mmengine.config import Config

    load_plugins()

    def schedule(*stages: Content) -> str:
        config = Config(tiny_config(train_cfg=dict(max_epochs=4), stages=list(stages)))
        planned = [each.stage for each in expand(list(stages), Mistakes())]
        epochs = sum(stage.length(config) for stage in planned if isinstance(stage, Train))
        return part_fingerprints(config, epochs)['schedule']

    by_itself, named = dict(type='Train'), dict(type='Train', epochs=4)
    assert schedule(by_itself) == schedule(named) != schedule(named, by_itself)
    assert schedule(named, by_itself) == schedule(dict(type='Train', epochs=8))
