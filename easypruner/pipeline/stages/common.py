"""Helpers of several stages: they build runners, evaluate, and write weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import Tensor, nn

from easypruner.base.distributed import is_main
from easypruner.base.finite import not_finite, not_finite_in
from easypruner.engine.checkpoint import read_weights, save_weights
from easypruner.engine.health_hook import listed
from easypruner.engine.model_calls import loss_call, outputs_call
from easypruner.engine.pretrained import load_weights
from easypruner.engine.progress import StageProgress
from easypruner.engine.runner import RunnerPlan, StageRunner, build_runner
from easypruner.engine.stop_hook import StopHook
from easypruner.errors import EasyPrunerError
from easypruner.graph import ChannelGraph
from easypruner.strategies import Context
from easypruner.strategies.stages.state import PruningState

WEIGHTS = 'weights.pth'


def stage_runner(
    state: PruningState,
    epochs: int | None = None,
    overrides: Mapping[str, Any] | None = None,
    hooks: Sequence[Hook] = (),
) -> StageRunner:
    """Build a runner for the current stage and network."""
    plan = RunnerPlan(
        work_dir=state.stage,
        seed=state.run.seed,
        launcher=state.run.launcher,
        verbose=state.run.verbose,
        architecture=state.architecture,
        checkpoint=state.checkpoint,
        epochs=epochs,
        overrides=overrides or {},
        hooks=hooks if epochs is None else [*hooks, StopHook(state.run.stop)],
    )
    return build_runner(state.config, plan, state.configure)


def loaded_runner(state: PruningState) -> StageRunner:
    """Build a runner that does not train, with the current weights."""
    runner = stage_runner(state)
    if state.checkpoint is not None:
        load_weights(runner.plain_model, state.checkpoint)
    return runner


def with_weights(state: PruningState, model: nn.Module) -> PruningState:
    """Write a model's weights to the stage's folder; return the state with their path.

    Raises:
        EasyPrunerError: some weights are NaN or infinite, and were not so before.
    """
    _check_finite(state, model)
    return replace(state, checkpoint=state.write(WEIGHTS, partial(save_weights, model)))


def _check_finite(state: PruningState, model: nn.Module) -> None:
    bad = not_finite(model)
    if not bad:
        return
    before = {} if state.checkpoint is None else read_weights(state.checkpoint)
    wrong = [name for name in bad if name not in not_finite_in(before)]
    if wrong:
        name = state.stage.name.partition('_')[2]
        raise EasyPrunerError(
            f'stage {name!r} has made weights that are not finite: {listed(wrong)}; nothing was '
            'saved; look for NaN in the data, for a plugin that computes them, or train with a '
            'lower learning rate'
        )


def with_row(
    state: PruningState, name: str | None, runner: StageRunner, graph: ChannelGraph
) -> PruningState:
    """Evaluate, and return the state with another row; return the same state if name is None."""
    if name is None:
        return state
    return replace(state, rows=(*state.rows, state.row(name, runner.accuracy(), graph)))


def stage_context(state: PruningState, runner: StageRunner | None = None) -> Context:
    """Return the context for a strategy in the current stage.

    Args:
        state: the state of the run.
        runner: the runner that measures the accuracy; None for a context without it.
    """
    loader = state.config.train_dataloader
    progress = StageProgress(state.stage.name.partition('_')[2], state.run.console, is_main())
    return Context(
        seed=state.run.seed,
        batches=lambda: Runner.build_dataloader(loader.to_dict(), seed=state.run.seed),
        loss=training_loss,
        evaluate=None if runner is None else runner.accuracy_of,
        forward=forward_pass,
        folder=state.stage,
        track=progress.track,
    )


def training_loss(model: BaseModel, batch: Any) -> Tensor:
    """Return the training loss of a model on a batch of the data loader."""
    data = model.data_preprocessor(batch, True)
    return model.parse_losses(model(**loss_call(model, data)))[0]


@torch.no_grad()
def forward_pass(model: BaseModel, batch: Any) -> object:
    """Run a model on a batch of the data loader, without a loss."""
    return model(**outputs_call(model, model.data_preprocessor(batch, False)))
