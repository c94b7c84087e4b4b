"""Pruning: a network is cut in place, with its optimizers, copies and config."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn
from torch.optim import Optimizer

from easypruner.graph.cutting.handlers import LayerHandler
from easypruner.graph.cutting.optimizer_handler import OptimizerHandler
from easypruner.graph.cutting.record import ArchitectureRecord
from easypruner.graph.graph import ChannelGraph, cut_graph
from easypruner.graph.recording.tape import ExampleInputs
from easypruner.graph.recording.wrappers import (
    check_module,
    find_cuttable,
)
from easypruner.graph.tracing import trace


def prune(
    model: nn.Module,
    masks: Mapping[str, Tensor],
    *,
    graph: ChannelGraph | None = None,
    example_inputs: ExampleInputs | None = None,
    optimizer: Optimizer | Sequence[Optimizer] = (),
    copies: nn.Module | Sequence[nn.Module] = (),
    handlers: Sequence[LayerHandler] = (),
    optimizer_handlers: Sequence[OptimizerHandler] = (),
) -> ArchitectureRecord:
    """Remove the units that ``masks`` do not keep, in place.

    Parameters stay the same objects, so optimizers, hooks and ties remain valid. Their gradients
    are cut with them. What torch.compile has compiled in this process is forgotten: torch compiles
    a function for a few shapes only, and then runs it as it is. If anything fails, the model, the
    optimizers and the copies are left as they were. The graph is updated: it describes the pruned
    model afterwards.

    The config of a network of Hugging Face follows. If it cannot describe the widths,
    ``save_pretrained`` writes a folder for :func:`easypruner.from_pretrained`.

    Args:
        model: the network. Inside DataParallel or ``torch.compile``, the network in it is cut.
        masks: group -> bool tensor ``(units,)``, True = keep.
        graph: the graph of this model; for another instance see :meth:`ChannelGraph.on`. Without
            it, the model is traced on ``example_inputs``.
        example_inputs: as for :func:`trace`; only needed without ``graph``.
        optimizer: one or several optimizers, whose states (momentum, moments) are cut as well.
        copies: networks of the same class and shapes with their own weights, from which the same
            indices are cut: a teacher, or averaged weights such as
            ``torch.optim.swa_utils.AveragedModel`` or MMEngine's ``ExponentialMovingAverage``.
        handlers: as for :func:`trace`; only used without ``graph``.
        optimizer_handlers: handlers of optimizers, before those of plugins.

    Returns:
        The record from which :func:`load_pruned` rebuilds the architecture.

    Raises:
        MaskError: masks do not fit, remove all units of a group, or leave widths with which code
            that compares widths, or loops or chooses by one, takes another path.
        CutError: the graph belongs to another instance, a copy is another network, the state of an
            optimizer cannot be cut, or the model is wrapped in DistributedDataParallel, which must
            be built again after a cut.
        TraceError: ``model`` is not a network, or as for :func:`trace`.
    """
    check_module(model)
    inventory = find_cuttable(model)
    model = inventory.model
    if graph is None:
        if example_inputs is None:
            raise TypeError('prune() needs graph= (from easypruner.trace) or example_inputs=')
        graph = trace(model, example_inputs, handlers)
    return cut_graph(
        model,
        masks,
        graph=graph,
        optimizer=optimizer,
        copies=copies,
        optimizer_handlers=optimizer_handlers,
        inventory=inventory,
    )
