"""Ultralytics: ``pruned`` opens the checkpoint of a pruned network, to train it further."""

from __future__ import annotations

import os
from typing import Any

from easypruner.errors import missing_package
from easypruner.slimming.detectors import with_network

try:
    from ultralytics import YOLO
    from ultralytics.engine.model import Model
except ImportError as error:
    raise missing_package('ultralytics', __name__) from error


def pruned(model: Model | str | os.PathLike[str]) -> Any:
    """Return a model of Ultralytics that trains its network in the widths that it has.

    ``easypruner.slim`` returns such a model. ``YOLO`` opens the checkpoint of a pruned network as
    well, validates and exports it; but its ``train()`` builds the network anew from the yaml file,
    in the original widths.

    Args:
        model: the model, or the path of its checkpoint, which Ultralytics unpickles.
    """
    opened = model if isinstance(model, Model) else YOLO(model)
    return with_network(opened, opened.model)
