"""Checks of one model: its channel graph, a random cut, verification and costs."""

from __future__ import annotations

import contextlib
import copy
import re
import time
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from operator import is_not
from typing import Any

import torch
from coverage_result import Result
from models import Entry
from network_kind import kind_of
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import easypruner
from easypruner.base.nested import map_tensors, tensors_in
from easypruner.graph import ChannelGraph, Cost
from easypruner.graph.answers.structure import HEAD_WIDTH, HEADS, STREAM_WITH
from easypruner.graph.recording.inventory import without_fast_path
from easypruner.graph.recording.tape import ExampleInputs, call_arguments
from easypruner.graph.verify import compute_outputs, relative_error, zero_readers

META_PARAMS = 120_000_000
"""Models with more parameters than this are built on the meta device and not verified."""

# Images with larger sides are scaled down for the verification.
_VERIFY_SIDE = 96


def check(entry: Entry) -> Result:
    """Measure a model. Any exception is a part of the result."""
    warnings.filterwarnings('ignore')
    torch.set_num_threads(1)
    found: dict[str, Any] = {'status': 'failed'}
    step = 'building'
    try:
        model, inputs = _build(entry)
        on_meta = next(model.parameters()).is_meta
        found |= {'params': sum(p.numel() for p in model.parameters())}
        step = 'its own forward'
        found['kind'] = kind_of(model, inputs)
        if not on_meta:
            enliven(model, inputs)
        start = time.process_time()
        compute_outputs(model, inputs)
        found['own_seconds'] = time.process_time() - start
        step = 'trace'
        start = time.process_time()
        graph = easypruner.trace(model, inputs)
        found['seconds'] = time.process_time() - start
        found |= structure(graph) | shares(graph)
        shapes = [tensor.shape for tensor in compute_outputs(model, inputs, graph.counted)]
        masks = random_masks(graph)
        if not on_meta:
            step = 'verify'
            found |= verification(model, masks, inputs)
        step = 'heads'
        found |= heads(model, inputs, found)
        step = 'counting'
        depends, flops = count(model, inputs)
        # A guess of what a detector selects has other products than a run on these inputs.
        flops = None if any('as many entries' in note for note in graph.notes) else flops
        found['counted_on'] = 'values' if depends else 'meta'
        found['costs'] = compare(graph.cost(), flops, model, 'before')
        predicted = graph.cost(masks)
        step = 'prune'
        easypruner.prune(model, masks, graph=graph)
        step = 'the pruned forward'
        found['keeps_shapes'] = depends or shapes == [
            t.shape for t in compute_outputs(model, inputs, graph.counted)
        ]
        step = 'counting after the cut'
        left = None if depends else count(model, inputs)[1]
        found['costs'] |= compare(predicted, left, model, 'after')
        found['status'] = 'measured'
    except Exception as error:  # any exception of a model or a library is a result
        found['error'] = f'{step}: {type(error).__name__}: {" ".join(str(error).split())[:300]}'
        if step in ('building', 'its own forward'):
            found['status'] = 'unusable'
    return Result(entry.source, entry.name, entry.family, **found)


def _build(entry: Entry) -> tuple[nn.Module, ExampleInputs]:
    """Build a model. A large model, or one of unknown size that is large, is built on meta."""
    if not 0 < entry.size <= META_PARAMS:
        try:
            with torch.device('meta'):
                model, inputs = entry.build()
        except Exception:  # some constructors fail on tensors without values
            return entry.build()
        if sum(p.numel() for p in model.parameters()) > META_PARAMS:
            return model.eval(), inputs
    model, inputs = entry.build()
    return model.eval(), inputs


@torch.no_grad()
def enliven(model: nn.Module, inputs: ExampleInputs) -> None:
    """Make the outputs depend on every channel, because branches of new models often add nothing.

    Constant parameters (scales of norms, layer scales, biases) become random, and batch norms get
    the statistics of the example inputs where possible.
    """
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.is_floating_point() and parameter.numel() > 1 and parameter.std() == 0:
            low, high = (0.5, 1.5) if parameter.flatten()[0] else (-0.2, 0.2)
            parameter.uniform_(low, high, generator=generator)
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.training, norm.momentum = True, None
    twice = map_tensors(inputs, lambda t: torch.cat([t, t]) if t.dim() > 3 else t)
    args, kwargs = call_arguments(twice)
    with contextlib.suppress(Exception):  # such as a norm that gets one value per channel
        model(*args, **kwargs)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.training, norm.momentum = False, momentum
    # What a module keeps of its parameters in evaluation mode is renewed between the modes.
    model.train()
    model.eval()


def structure(graph: ChannelGraph) -> dict[str, Any]:
    """Return the results of the channel graph for the model's parameters."""
    parameters = dict(graph.model.named_parameters())
    counted: Counter[tuple[str, int]] = Counter()
    for group in graph.groups.values():
        for member in group.members:
            counted[member.param, member.dim] += member.index.numel()
    free = {param for param, _ in counted} & parameters.keys()
    for entry in graph.frozen:
        counted[entry.param, entry.dim] += entry.channels
    sizes = {(n, dim): size for n, p in parameters.items() for dim, size in enumerate(p.shape)}
    total = sum(p.numel() for p in parameters.values())
    why = [re.sub(r'\d+', '#', e.reason) for e in graph.frozen if e.param in parameters]
    return {
        'groups': len(graph.groups),
        'prunable': sum(parameters[name].numel() for name in free) / total,
        'neither': sum(abs(size - counted[place]) for place, size in sizes.items()),
        'reasons': dict(Counter(why).most_common()),
    }


def shares(graph: ChannelGraph) -> dict[str, Any]:
    """Return how much of each kind of structure can go, and what holds the rest."""
    found = graph.shares
    return {
        'shares': {
            s.kind: (s.units, s.prunable, s.cost.params, s.prunable_cost.params) for s in found
        },
        'held': {s.kind: {h.reason: h.units for h in s.held} for s in found if s.held},
    }


_OF_HEADS = {HEADS, STREAM_WITH[HEADS]}
"""The kinds of structure that are those of a trace for whole heads."""


def heads(model: nn.Module, inputs: ExampleInputs, found: Mapping[str, Any]) -> dict[str, Any]:
    """Trace again for whole heads, if the model has any: their share, and a verification."""
    if not {HEADS, HEAD_WIDTH} & found['shares'].keys():
        return {}
    start = time.process_time()
    graph = easypruner.trace(model, inputs, attention='heads')
    seconds = time.process_time() - start
    other = shares(graph)
    merged = {
        key: {
            **{kind: value for kind, value in found[key].items() if kind not in _OF_HEADS},
            **{kind: value for kind, value in other[key].items() if kind in _OF_HEADS},
        }
        for key in ('shares', 'held')
    }
    result = {**merged, 'heads_seconds': seconds}
    if found.get('verified_on') in ('full', 'small'):
        chosen = map_tensors(inputs, _shrunk) if found['verified_on'] == 'small' else inputs
        checked = easypruner.verify(model, random_masks(graph), chosen, attention='heads')
        result['heads_error'] = checked.error
    return result


def random_masks(graph: ChannelGraph) -> dict[str, Tensor]:
    """Return seeded masks that keep each unit with probability 0.5, at least one of each group."""
    generator = torch.Generator().manual_seed(0)
    masks = {}
    for group in graph.groups.values():
        masks[group.name] = torch.rand(group.size, generator=generator) < 0.5
        masks[group.name][torch.randint(group.size, (), generator=generator)] = True
    return masks


def verification(
    model: nn.Module, masks: Mapping[str, Tensor], inputs: ExampleInputs
) -> dict[str, Any]:
    """Verify the cut, on smaller images if the model has the same groups for them.

    If the model's forward needs single precision, the verification uses single precision as well.
    """
    small = map_tensors(inputs, _shrunk)
    shrinks = any(map(is_not, _tensors(small), _tensors(inputs)))
    for used, chosen in (('small', small), ('full', inputs)):
        if used == 'small' and not shrinks:
            continue
        try:
            result = easypruner.verify(model, masks, chosen)
        except Exception:  # any exception of a model for images that are too small
            if used == 'full' and _runs_in_double(model, inputs):
                raise
            continue
        unchecked = len(result.unchecked)
        return {'verify_error': result.error, 'verified_on': used, 'unchecked': unchecked}
    return _verified_in_single(model, masks, inputs)


def _tensors(inputs: ExampleInputs) -> list[Tensor]:
    return [tensor for _, tensor in tensors_in(inputs)]


def _runs_in_double(model: nn.Module, inputs: ExampleInputs) -> bool:
    double = map_tensors(inputs, lambda t: t.double() if t.is_floating_point() else t)
    try:
        compute_outputs(copy.deepcopy(model).double(), double)
    except Exception:  # any exception of a model
        return False
    return True


def _verified_in_single(
    model: nn.Module, masks: Mapping[str, Tensor], inputs: ExampleInputs
) -> dict[str, Any]:
    pruned, full = copy.deepcopy(model), copy.deepcopy(model)
    graph = easypruner.trace(pruned, inputs)
    checked = {name: mask for name, mask in masks.items() if not graph.groups[name].mixed}
    zero_readers(full, checked, graph)
    easypruner.prune(pruned, checked, graph=graph)
    return {
        'verify_error': relative_error(
            compute_outputs(full, inputs), compute_outputs(pruned, inputs)
        ),
        'verified_on': 'single',
        'unchecked': len(masks) - len(checked),
    }


def _shrunk(tensor: Tensor) -> Tensor:
    if tensor.dim() < 4 or min(tensor.shape[-2:]) <= _VERIFY_SIDE:
        return tensor
    return tensor[..., :_VERIFY_SIDE, :_VERIFY_SIDE]


def count(model: nn.Module, inputs: ExampleInputs) -> tuple[bool, int]:
    """Return whether the forward pass needs values, and the counted floating-point operations.

    Torch counts on a copy on the meta device, in which attention is decomposed as in a trace. If
    the forward pass needs values, torch counts on the model itself.
    """
    try:
        on_meta = copy.deepcopy(model).to('meta')
        return False, _flops(on_meta, map_tensors(inputs, lambda t: t.to('meta')))
    except Exception:  # a meta tensor has no values and cannot be combined with real tensors
        return True, _flops(copy.deepcopy(model), inputs)


def _grouped_flops(rows: Sequence[int], weights: Sequence[int], *args: Any, **kwargs: Any) -> int:
    """Return the operations of a product of each group of rows with a matrix of its own."""
    return 2 * rows[0] * rows[1] * weights[-1]


_UNCOUNTED = {torch.ops.aten._grouped_mm: _grouped_flops}
"""The operations that torch's counter takes for free."""


def _flops(model: nn.Module, inputs: ExampleInputs) -> int:
    # With gradients, the counter fails on parameters that modules get as arguments.
    model.requires_grad_(False)
    # The counter does not support the fused attention kernel for CPUs.
    plain = sdpa_kernel(SDPBackend.MATH)
    with (
        without_fast_path(),
        plain,
        FlopCounterMode(display=False, custom_mapping=_UNCOUNTED) as counter,
    ):
        compute_outputs(model, inputs)
    return int(counter.get_total_flops())


def compare(predicted: Cost, flops: int | None, model: nn.Module, when: str) -> dict[str, bool]:
    """Compare a predicted cost with the counted operations and the model's parameters."""
    params = sum(p.numel() for p in model.parameters())
    found = {f'params {when}': predicted.params == params}
    if flops is not None:
        found[f'MACs {when}'] = 2 * predicted.macs == flops
    return found
