"""The check of rules: after any cut, a network has the outputs and the cost that they predict."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from easypruner.base.modules import copy_of, evaluating
from easypruner.errors import TraceError
from easypruner.graph import ChannelGraph, Masks
from easypruner.graph.coupling.rules.registration import WITHOUT_RULE
from easypruner.graph.recording.inventory import without_fast_path
from easypruner.graph.recording.tape import ExampleInputs, call_arguments
from easypruner.slimming import prune, trace, verify
from easypruner.testing.checks import random_masks

Flops = Mapping[Any, Callable[..., int]]
"""Operation, such as ``torch.ops.mylib.scale`` -> a function of the shapes of its arguments."""

_SEEDS = 3


def check_rule(model: nn.Module, inputs: ExampleInputs, flops: Flops | None = None) -> None:
    """Cut copies of a network whose operations have rules: each group alone, and all groups.

    Groups lose random positions, so that channels that a rule forgets to couple do not fit or
    are the wrong ones. The check passes if every cut verifies, and if the pruned network has the
    multiply-adds that the graph predicts.

    Args:
        model: a network with the operations; it is left as it was. Its outputs should depend on
            every channel, as those of :func:`easypruner.testing.randomized_network` do.
        inputs: the inputs of the network.
        flops: the formulas of operations that torch does not count, as for ``custom_mapping`` of
            torch's ``FlopCounterMode``: each multiply-add is two. Multiply-adds are then compared
            with torch's count, before the cuts as well. ``{}`` if torch counts all operations;
            None to compare them only with those of a new trace.

    Raises:
        AssertionError: an operation has no rule, no channel can be removed, or a cut does not
            verify or has other multiply-adds.
    """
    graph = trace(model, inputs)
    reasons = {frozen.reason: None for frozen in graph.frozen}
    missing = [reason for reason in reasons if reason.startswith(WITHOUT_RULE)]
    assert not missing, missing[0]
    kind = type(model).__name__
    assert graph.groups, f'no channel of this {kind} can be removed: {"; ".join(reasons)}'
    _check_macs(model, inputs, flops, graph.cost().macs, 'before a cut')
    for case, masks in _cases(graph):
        _check_cut(graph, masks, case)
        pruned = copy_of(model)
        prune(pruned, masks, graph=graph.on(pruned))
        _check_macs(pruned, inputs, flops, graph.cost(masks).macs, case)


def _cases(graph: ChannelGraph) -> Iterator[tuple[str, Masks]]:
    """Yield masks, with a description, of each group alone and of all groups together."""
    for seed in range(_SEEDS):
        masks = random_masks(graph, keep=0.5, seed=seed)
        for name, mask in masks.items():
            yield f'group {name!r} alone, seed {seed}', Masks({name: mask})
        yield f'all groups, seed {seed}', masks


def _check_cut(graph: ChannelGraph, masks: Masks, case: str) -> None:
    try:
        found = verify(graph.model, masks, graph.example_inputs, graph=graph)
    except TraceError as error:
        raise AssertionError(f'{case}: {error}') from error
    assert not found.failed, f'{case}: verify finds an error of {found.error}'
    assert found.passed, f'{case}: the outputs do not depend on the groups that lose channels'


def _check_macs(
    model: nn.Module, inputs: ExampleInputs, flops: Flops | None, predicted: int, case: str
) -> None:
    """Compare the predicted multiply-adds of a network with those of a new trace and of torch."""
    counts = {'a new trace': trace(model, inputs).cost().macs}
    if flops is not None:
        counts['torch'] = _count(model, inputs, flops)
    for counter, counted in counts.items():
        assert predicted == counted, (
            f'{case}: the graph predicts {predicted} MACs, but {counter} counts {counted}'
        )


def _count(model: nn.Module, inputs: ExampleInputs, flops: Flops) -> int:
    """Return the multiply-adds that torch counts."""
    args, kwargs = call_arguments(inputs)
    counter = FlopCounterMode(display=False, custom_mapping=dict(flops))
    # Torch counts neither fused kernels of attention on CPUs nor fused transformer layers.
    with (
        torch.no_grad(),
        evaluating(model),
        without_fast_path(),
        sdpa_kernel(SDPBackend.MATH),
        counter,
    ):
        model(*args, **kwargs)
    return counter.get_total_flops() // 2
