"""Settings that MMEngine reads late or not at all are mistakes before the run."""

from __future__ import annotations

from typing import Any

import pytest
from mmengine.config import Config

from easypruner.engine.config_keys import FileKeys, mark_unchecked
from easypruner.engine.late_settings import check_late_settings, ignored_warnings
from easypruner.errors import Mistakes
from tests.helpers.tiny import tiny_config


def messages(**changes: Any) -> str:
    """Return the mistakes in a config with these keys, each on a line."""
    mistakes = Mistakes()
    check_late_settings(Config(tiny_config(**changes)), mistakes)
    return '\n'.join(map(str, mistakes.found))


@pytest.mark.parametrize(
    ('changes', 'parts'),
    [
        (dict(env_cfg=dict(cudnn_benchmrk=True)), ['env_cfg', "did you mean 'cudnn_benchmark'"]),
        (dict(train_cfg=dict(val_interval=0)), ['train_cfg', 'val_interval=0']),
        (dict(train_cfg=dict(val_interval='1')), ['train_cfg', "val_interval='1'"]),
        (
            dict(optim_wrapper=dict(paramwise_cfg=dict(norm_decay_mul=0))),
            ['optim_wrapper.paramwise_cfg', "did you mean 'norm_decay_mult'"],
        ),
        (
            dict(optim_wrapper=dict(paramwise_cfg=dict(custom_keys={'a.b': dict(lr_mul=0)}))),
            ["optim_wrapper.paramwise_cfg.custom_keys['a.b']", "did you mean 'lr_mult'"],
        ),
        (dict(log_level='INFOO'), ['log_level', "did you mean 'INFO'"]),
        (
            dict(visualizer=dict(vis_backends=[dict(type='TensorbordVisBackend')])),
            ['visualizer.vis_backends[0]', "did you mean 'TensorboardVisBackend'"],
        ),
    ],
)
def test_a_mistake_is_reported(changes: dict[str, Any], parts: list[str]) -> None:
    found = messages(**changes)
    assert all(part in found for part in parts), found
    assert len(found.splitlines()) == 1


def test_what_is_right_is_accepted() -> None:
    backends = [dict(type='LocalVisBackend'), dict(type='WandbVisBackend')]
    assert not messages(
        env_cfg=dict(cudnn_benchmark=False, mp_cfg=dict(), resource_limit=1024),
        train_cfg=dict(max_epochs=2, val_interval=2),
        log_level=10,
        optim_wrapper=dict(
            constructor='LearningRateDecayOptimWrapperConstructor',
            paramwise_cfg=dict(layer_decay_rate=0.7),
        ),
        visualizer=dict(type='UniversalVisualizer', vis_backends=backends),
    )
    options = dict(custom_keys={'head': dict(lr_mult=2, momentum=0.5)}, bias_decay_mult=0)
    assert not messages(optim_wrapper=dict(paramwise_cfg=options))
    assert not messages(log_level='DEBUG', visualizer=dict(vis_backends=backends[0]))


def test_a_setting_that_a_run_does_not_read_is_a_warning() -> None:
    assert '--resume' in ignored_warnings(tiny_config(resume=True))[0]
    assert not ignored_warnings(tiny_config(resume=False))


def test_keys_of_bases_are_not_checked() -> None:
    config = Config(tiny_config(env_cfg=dict(of_another_package=True)))
    mark_unchecked(config, FileKeys(frozenset(), frozenset()), ())
    mistakes = Mistakes()
    check_late_settings(config, mistakes)
    assert not mistakes.found
