"""The networks of a run: the one it has made so far, and the original."""

from __future__ import annotations

from mmengine.registry import MODELS
from torch import nn

from easypruner.engine.config import model_settings
from easypruner.engine.pretrained import load_weights
from easypruner.pipeline.work_dir import INITIAL
from easypruner.strategies.stages.state import PruningState


def current_network(state: PruningState) -> nn.Module:
    """Return the network that the stages so far have made, with its weights."""
    model: nn.Module = MODELS.build(model_settings(state.config))
    model = state.record().apply(model, state.run.handlers)
    if state.checkpoint is not None:
        load_weights(model, state.checkpoint)
    return model


def unpruned_network(state: PruningState) -> nn.Module:
    """Return the original network, with the weights that it had before any push towards a cut."""
    model: nn.Module = MODELS.build(model_settings(state.config))
    file = state.unpruned or state.work_dir / INITIAL
    if file.is_file():
        load_weights(model, file)
    return model
