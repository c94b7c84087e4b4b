"""Tracing: from a forward pass of a network to its channel graph."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from easypruner.base.nested import map_tensors
from easypruner.base.settings import changed_setting
from easypruner.errors import TraceError
from easypruner.graph.answers.answers import Answers
from easypruner.graph.coupling.choice import Attention, Grouped, Ignored, PruningChoice, Uniform
from easypruner.graph.coupling.cost import build_cost_model
from easypruner.graph.coupling.demands import with_demands
from easypruner.graph.coupling.groups import make_groups
from easypruner.graph.cutting.handlers import LayerHandler, counted_by, with_torch_layers
from easypruner.graph.graph import ChannelGraph, WidthGrids
from easypruner.graph.limits import Limits
from easypruner.graph.recording.inventory import StandIns, is_parameter
from easypruner.graph.recording.outputs import CountedOutputs, Outputs
from easypruner.graph.recording.tape import Call, ExampleInputs, Tape, check_calls, record
from easypruner.graph.recording.wrappers import check_parts, find_network
from easypruner.graph.trial.path import TracedCall
from easypruner.graph.trial.resolve import resolve
from easypruner.graph.trial.widths import AttributeModel

_GUESSED = (
    'what the network selects depends on its weights, as after a non-maximum suppression: costs '
    'are those of as many entries as the code allows'
)


# In inference mode, composite operations are recorded whole. The rules know their parts.
@torch.inference_mode(False)
# A trace allocates many objects that live to its end, so the garbage collector pauses.
@changed_setting(gc.isenabled, lambda on: gc.enable() if on else gc.disable(), False)
def trace(
    model: nn.Module,
    example_inputs: ExampleInputs,
    handlers: Sequence[LayerHandler] = (),
    *,
    ignore: Ignored | Iterable[Ignored] = (),
    limits: Limits | Mapping[str, Any] | None = None,
    attention: Attention = 'width',
    grouped: Grouped | None = None,
    uniform: Uniform = False,
    outputs: Outputs | None = None,
    calls: Sequence[Call] = (),
    target: WidthGrids | None = None,
) -> ChannelGraph:
    """Find out which channels of a model can be removed, and which go together.

    The model's own forward runs once on the meta device. No weight is copied, nothing is computed,
    and the model is left as it was.

    Args:
        model: a network whose forward runs on ``example_inputs``. If it is wrapped in
            DistributedDataParallel, DataParallel, ``torch.compile`` or a ``YOLO`` of Ultralytics,
            the graph is that of the network inside, with its names.
        example_inputs: a tensor, a tuple of positional arguments, or a dict of keyword arguments.
            MACs are those of this input, the whole batch.
        handlers: set the modules' own numbers after a cut, in order of precedence. Those for
            torch's own layers come last. ``easypruner.trace`` adds those of plugins before them.
        ignore: modules whose channels stay: paths (with all parts), globs, names of classes, or
            classes. Their inputs may still lose channels.
        limits: how many units of each group may go: :class:`easypruner.Limits` or a dict of its
            attributes for all groups; or a dict of such by path, glob or name of a group, of which
            the first that fits counts. Budgets observe them.
        attention: ``'width'`` removes width of every head of an attention, ``'heads'`` removes
            whole heads: those of keys and values with the heads of queries that share them.
            ``'query_heads'`` removes heads of queries alone where several share one of keys.
        grouped: ``'within'`` removes the same channels within each group of a grouped convolution,
            so that the number of groups stays; ``'whole'`` removes whole groups, so that their
            width stays. Where no whole group can go, channels within groups go, and ``notes`` of
            the graph says why. Depthwise convolutions are the same in both. The default is
            ``'whole'`` with a target, because runtimes are slow on narrow groups, else
            ``'within'``. :func:`easypruner.slim` and runs always have a target: all runtimes.
        uniform: whether groups of a kind, such as the MLPs of all layers, keep the same number of
            units, as configs of Hugging Face demand; or the paths, globs or names of groups that
            do. Budgets observe it.
        outputs: the outputs that count, by default those that a handler of the network says, or
            all: names or paths as ``graph.frozen``
            prints them, such as ``'logits'`` or ``"[1]['boxes']"``, with all that is in them, also
            globs; or a function of the network's output that returns the tensors that count.
            Channels of the others, such as features that a detector returns beside its boxes, may
            go, and :func:`easypruner.verify` does not compare them. A further call that returns
            something else keeps all of it.
        calls: further ways in which the network is used, whose code a cut must fit as well: other
            example inputs, such as a batch of another size, or functions that take the model, call
            it and return its outputs, such as a step of decoding with a cache. The model is in
            evaluation mode; a function may call ``model.train()``. It must make itself what a
            call changes, such as the cache.
        target: the runtime in which the network will run: each group keeps a multiple of the
            units with which its layers are fast there, unless its limits have a ``round_to``.
            ``easypruner.trace`` takes the name of a runtime, such as ``'OnnxRuntime'``, a dict
            with its arguments, or an object.

    Raises:
        ConfigError: an option cannot be used, or fits nothing.
        TraceError: the forward pass fails or is not Python code (TorchScript), or parameters are
            sharded over processes.

    >>> from torch import nn
    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1))
    >>> graph = trace(net, torch.zeros(1, 3, 8, 8))
    >>> graph
    ChannelGraph(Sequential: 1 groups, 8 units)
    >>> [(m.param, m.dim, m.role) for m in graph.groups['0'].members]
    [('0.weight', 0, 'out'), ('0.bias', 0, 'out'), ('2.weight', 1, 'in')]
    >>> graph.cost().macs  # 36 positions x 8 x 3 x 9, and 36 x 4 x 8
    8928
    """
    by_default: Grouped = 'within' if target is None or not target.implied else 'whole'
    model = find_network(model)
    handlers = with_torch_layers(handlers)
    if outputs is None:
        outputs = counted_by(model, handlers)
    choice = PruningChoice.of(ignore, limits, attention, grouped or by_default, uniform, outputs)
    check_calls(calls)
    stand_ins = StandIns(model)
    check_parts(stand_ins)
    parameters = {n: t for n, t in stand_ins.tensors.items() if is_parameter(t)}
    tapes = _record_tapes(stand_ins, example_inputs, parameters, choice.outputs)
    elsewhere = choice.outputs.elsewhere()
    of_calls = [_record_call(stand_ins, calls, number, elsewhere) for number in range(len(calls))]
    propagation, repairs = resolve(stand_ins, tapes, of_calls, choice, handlers)
    coupling, parts = propagation.coupling, propagation.parts
    groups, layout = make_groups(coupling, propagation.owned, parts, tapes[0].parameters)
    graph = ChannelGraph(
        model=model,
        groups=groups,
        operands=coupling.tally.operands,
        extents=coupling.tally.extents,
        limits={},
        handlers=handlers,
        example_inputs=example_inputs,
        target=target,
        counted=choice.outputs,
        notes=(*coupling.grouped.explain(), *(_GUESSED,) * tapes[0].backend.guesses),
        _demanding=lambda limits: with_demands(limits, coupling, parts, list(groups)),
        _layout=layout,
        _build_cost=lambda: build_cost_model(coupling, parts, parameters),
        _attributes=AttributeModel(repairs, parts),
        _calls=_find_paths(stand_ins, [example_inputs, *calls], [tapes[0], *of_calls]),
        _answers=Answers(coupling, parts, stand_ins.tensors, parameters),
        _retrace=lambda **options: trace(
            model,
            example_inputs,
            handlers,
            ignore=ignore,
            attention=options.get('attention', attention),
            grouped=options.get('grouped', choice.grouped),
            outputs=outputs,
            calls=calls,
        ),
    )
    graph.set_limits(choice.limits_of(groups))
    return graph


def _record_tapes(
    stand_ins: StandIns,
    example_inputs: ExampleInputs,
    parameters: Iterable[str],
    counted: CountedOutputs,
) -> list[Tape]:
    """Record the evaluation pass; if it does not use all tensors, the training pass as well.

    Auxiliary heads run in training only, and read channels that the main path makes; or evaluation
    drops what they make. So it is with moving averages in buffers, such as those of the codes of a
    quantizer.
    """
    evaluation = record(stand_ins, example_inputs, counted=counted)
    read = _find_used(evaluation)
    wide = (name for name, t in stand_ins.tensors.items() if t.numel() > 1)
    if all(id(evaluation.parameters[name]) in read for name in {*parameters, *wide}):
        return [evaluation]
    # In training, a batch norm needs several values per channel, even behind a global pool.
    twice = map_tensors(example_inputs, lambda t: torch.cat([t, t]) if t.dim() else t)
    try:
        elsewhere = counted.elsewhere()
        return [evaluation, record(stand_ins, twice, True, evaluation.backend, elsewhere)]
    except TraceError:
        return [evaluation]


def _find_used(tape: Tape) -> set[int]:
    """Return the ids of the tensors on which an output of a pass depends.

    What is written into a tensor counts as used.
    """
    used = {id(tensor) for _, tensor in tape.outputs}
    for operation in reversed(tape.operations):
        if operation.func._schema.is_mutable or not used.isdisjoint(map(id, operation.outputs)):
            used.update(map(id, operation.tensors))
    return used


def _find_paths(
    stand_ins: StandIns, calls: Iterable[Call], tapes: Iterable[Tape]
) -> tuple[TracedCall, ...]:
    """Return the calls with their paths; none if the code reads no widths that it could compare."""
    if not stand_ins.code.comparisons.anything:
        return ()
    return tuple(
        TracedCall.of(call, tape, stand_ins) for call, tape in zip(calls, tapes, strict=True)
    )


def _record_call(
    stand_ins: StandIns, calls: Sequence[Call], number: int, counted: CountedOutputs
) -> Tape:
    try:
        return record(stand_ins, calls[number], counted=counted)
    except TraceError as error:
        raise TraceError(f'calls[{number}]: {error}') from error
