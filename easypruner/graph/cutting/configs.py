"""After a cut: configs of Hugging Face follow, in the network and its copies, and in the record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from easypruner.base.nested import map_tensors
from easypruner.graph.cutting.record import ArchitectureRecord
from easypruner.graph.pretrained.building import has_pretrained
from easypruner.graph.pretrained.following import Configs, check, follow, set_again
from easypruner.graph.recording.inventory import Inventory, StandIns
from easypruner.graph.recording.tape import ExampleInputs, record
from easypruner.graph.recording.wrappers import find_copy

_MOST_VALUES = 2**16


def with_configs(
    cut: ArchitectureRecord,
    inventory: Inventory,
    copies: Sequence[nn.Module],
    before: Configs,
    example_inputs: ExampleInputs,
) -> ArchitectureRecord:
    """Let the configs in a model and in its copies follow a cut that was made.

    Args:
        cut: the record of the cut.
        inventory: the inventory of the model.
        copies: networks that were cut alike.
        before: the configs of the model and of its copies before the cut.
        example_inputs: for the check that a new config does not change what is computed.

    Returns:
        the record with the numbers that were set.
    """
    if not has_pretrained(inventory.modules.values()) or not cut.tensors:
        return cut
    model = inventory.model
    followed = follow(model, cut, before, lambda: _behaviour(model, example_inputs))
    for other in copies:
        network = find_copy(other, model)
        set_again(network, followed)
        check(network, cut, before)
    as_tuples = {k: v if isinstance(v, int) else tuple(v) for k, v in followed.items()}
    return replace(cut, attributes={**cut.attributes, **as_tuples})


def _behaviour(model: nn.Module, example_inputs: ExampleInputs) -> list[Any]:
    """Return the operations of a forward pass, with their numbers and the shapes of tensors."""
    tape = record(StandIns(model), example_inputs)
    return [
        (step.name, *map_tensors([step.args, step.kwargs, step.outputs], _content))
        for step in tape.operations
    ]


def _content(tensor: Tensor) -> Any:
    """Return the shape of a tensor, and its values if it is a small one that has some."""
    known = not tensor.is_meta and type(tensor) is Tensor and tensor.numel() <= _MOST_VALUES
    values = tensor.detach().cpu().flatten().tolist() if known else None
    return tuple(tensor.shape), tensor.dtype, repr(values)
