"""PrunedModel: builds a pruned model from the config of the original and a network record."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.registry import MODELS
from torch import nn

from easypruner.errors import UnknownTransformError
from easypruner.graph import NetworkRecord
from easypruner.plugins import load_plugins
from easypruner.plugins.handlers import plugin_handlers, plugin_transforms
from easypruner.registry import MODELS as OWN_MODELS


def PrunedModel(  # noqa: N802 - configs use it like a class
    model: Mapping[str, Any],
    architecture: str | os.PathLike[str],
    data_preprocessor: Mapping[str, Any] | None = None,
    plugins: Sequence[str] = (),
) -> nn.Module:
    """Build the original model and apply the transforms of a network record to it.

    The result is an instance of the original class, and its state dict has the original names.
    Every tool for the original model therefore works on it. The caller has to load the weights.

    Args:
        model: the config of the original model.
        architecture: the path of the record.
        data_preprocessor: the config that a Runner passes to the model; None for no preprocessor.
        plugins: plugin folders and modules that define transforms of the record. They are loaded
            if no loaded plugin defines these.

    Raises:
        RecordError: the record is damaged or belongs to another model.
    """
    config = dict(model)
    if data_preprocessor is not None:
        config.setdefault('data_preprocessor', data_preprocessor)
    built: nn.Module = MODELS.build(config)
    return _load_record(architecture, plugins).apply(built, plugin_handlers())


def _load_record(path: str | os.PathLike[str], plugins: Sequence[str]) -> NetworkRecord:
    try:
        return NetworkRecord.load(path, plugin_transforms())
    except UnknownTransformError:
        folders = [p for p in plugins if Path(p).is_absolute() or Path(p).is_dir()]
        load_plugins(folders, [p for p in plugins if p not in folders])
        return NetworkRecord.load(path, plugin_transforms())


OWN_MODELS.register_module(module=PrunedModel)
