"""A pruned model from configs alone: the original's config and an architecture record."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from mmengine.registry import MODELS
from torch import nn

from easypruner.graph import NetworkRecord
from easypruner.plugins.handlers import plugin_handlers, plugin_transforms
from easypruner.registry import MODELS as OWN_MODELS


def PrunedModel(  # noqa: N802 - configs name it like the classes it stands beside
    model: Mapping[str, Any],
    architecture: str | os.PathLike[str],
    data_preprocessor: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Build the original model and cut it to the shapes of an architecture record.

    The result is an instance of the original class with the original names in its state dict, so
    every tool for the original works on it. Its weights are to be loaded.

    Args:
        model: config of the original model.
        architecture: path of the record.
        data_preprocessor: config that a Runner hands to the model; passed on.

    Raises:
        RecordError: the record is damaged or belongs to another model.
    """
    config = dict(model)
    if data_preprocessor is not None:
        config.setdefault('data_preprocessor', data_preprocessor)
    built: nn.Module = MODELS.build(config)
    record = NetworkRecord.load(architecture, plugin_transforms())
    return record.apply(built, plugin_handlers())


OWN_MODELS.register_module(module=PrunedModel)
