"""Independence: the proof that the code of a network reads nothing that a cut changes.

Then it takes the same path with the same arguments after any cut. If each operation on that path
makes its output of whatever widths its inputs have, the forward pass follows every cut, and no
trial is needed. Where the proof fails, trials decide.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from easypruner.graph.coupling.rules.pointwise import pointwise
from easypruner.graph.coupling.rules.registration import find_rule
from easypruner.graph.coupling.tally import Width
from easypruner.graph.cutting.handlers import TORCH_HANDLERS, LayerHandler, table_of
from easypruner.graph.recording.inventory import StandIns
from easypruner.graph.recording.plain_code import CONSTANTS, LAYERS
from easypruner.graph.recording.tape import Operation, Tape
from easypruner.graph.trial.widths import Repairs

_FOLLOWING = frozenset({
    'native_batch_norm', 'cudnn_batch_norm', 'mm', 'addmm', 'linear', 't', 'cat',
    'permute', 'transpose', 'clone', 'detach', 'alias', 'mean', 'sum', 'amax', 'amin', 'view',
    '_unsafe_view', 'max_pool2d_with_indices', 'avg_pool2d', '_adaptive_avg_pool2d', '_softmax',
    'adaptive_max_pool2d',
})  # fmt: skip
"""Operations that follow any width, if no number that they are given is a width.

Views do not, but the code may only come to them by ``flatten`` and by layers.
"""
_NUMBERED = frozenset({'convolution', 'native_layer_norm'})
"""Operations that are given widths or numbers of groups. Those of layers are set after a cut."""
_OWN_RULES = pointwise.__module__.rpartition('.')[0]


def is_independent(
    stand_ins: StandIns,
    tape: Tape,
    handlers: Sequence[LayerHandler],
    widths: Iterable[Width],
    repairs: Repairs,
) -> bool:
    """Return whether a forward pass is proved to follow every cut.

    Args:
        stand_ins: the model.
        tape: the tape of the pass.
        handlers: set the modules' own numbers after a cut.
        widths: the numbers of modules that rules have noted as widths.
        repairs: the repairs of these.
    """
    code = stand_ins.code
    return (
        not tape.backend.has_values
        and not (tape.backend.guesses or tape.backend.replays)
        and _is_plain(tape.example_inputs)
        and code.learns_no_width
        and all(_is_of_layer(w.module, stand_ins) and w.key in repairs for w in widths)
        and all(_follows(operation, stand_ins) for operation in tape.operations)
        and not _handle_any(handlers, code.types.values())
    )


def _handle_any(handlers: Sequence[LayerHandler], modules: Iterable[nn.Module]) -> bool:
    """Return whether a handler that is not one of torch's layers may set numbers of modules."""
    table = table_of(handlers)
    return any(table.find(module) not in (None, *TORCH_HANDLERS) for module in modules)


def _is_plain(inputs: Any) -> bool:
    """Return whether inputs are tensors and constants."""
    if isinstance(inputs, Mapping):
        return all(map(_is_plain, inputs.values()))
    if type(inputs) in (tuple, list):
        return all(map(_is_plain, inputs))
    return isinstance(inputs, Tensor) or type(inputs) in CONSTANTS


def _is_of_layer(path: str, stand_ins: StandIns) -> bool:
    return type(stand_ins.modules[path]) in LAYERS


def _follows(operation: Operation, stand_ins: StandIns) -> bool:
    """Return whether an operation makes its outputs of whatever widths its inputs have."""
    name = operation.name
    if name in _NUMBERED:  # the handler of a norm knows its width by its weight
        has_weight = operation.argument('weight') is not None
        return has_weight and _is_of_layer(operation.module, stand_ins)
    if 'adaptive' in name and _may_ask_for_width(operation):
        return False
    rule = find_rule(operation)
    # A rule of the user may be wrong, which a trial shows.
    return rule is pointwise or (name in _FOLLOWING and rule.__module__.startswith(_OWN_RULES))


def _may_ask_for_width(operation: Operation) -> bool:
    """Return whether an adaptive pool keeps an extent, which code may have given by number."""
    before, after = operation.tensors[0].shape, operation.output.shape
    return any(size == kept > 1 for size, kept in zip(before[2:], after[2:], strict=True))
