"""Stage and transform: int8 weights and dynamically quantized activations, for CPUs."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from easypruner import Component, LayerHandler, Stage, hookimpl
from easypruner.base.checks import check_text
from easypruner.base.json_fields import Field
from easypruner.base.modules import evaluating
from easypruner.errors import RecordError, nearest
from easypruner.graph import Transform
from easypruner.graph.recording.tape import ExampleInputs, call_arguments

from ._int8 import has_int8_kernels, int8_type_for

if TYPE_CHECKING:
    from easypruner.strategies.stages.forecast import Forecast
    from easypruner.strategies.stages.state import PruningState

_FEW_CHANNELS = 8
"""Channels of a group of a convolution under which int8 kernels are slower than float ones."""


_SHOWN = 3


class Quantize(Stage):
    """Gives linear and convolution layers int8 weights; activations are quantized as they come.

    No data is needed: each activation gets its scale when it is computed (dynamic quantization;
    the arithmetic is that of Jacob et al., 2018, arXiv 1712.05877). The file of the weights shrinks
    to about a quarter. It comes last: what it leaves can be evaluated and saved, but neither
    trained nor cut. Layers that stay in float are reported, each with the reason.

    Args:
        row: name of the row that the result gets in the final table; None for no row.
        name: of the stage.
    """

    def __init__(self, row: str | None = 'quantized', name: str = 'quantize') -> None:
        super().__init__(name)
        self.row = check_text(row, 'row', 'Quantize')

    def forecast(self, before: Forecast) -> Forecast:
        before.check_not_fixed()
        return replace(before, fixed=f'stage {self.name!r} has made the weights whole numbers')

    def run(self, state: PruningState) -> PruningState:
        """Quantize, save the weights and the record, evaluate."""
        # These need MMEngine, without which load_pruned has to find the transform.
        from easypruner.pipeline.stages.common import loaded_runner, with_row, with_weights

        runner = loaded_runner(state)
        example = state.run.trace(runner.plain_model).example_inputs
        runner.model, transform = quantize(runner.plain_model, example)
        by_reason = defaultdict(list)
        for path, reason in transform.kept.items():
            by_reason[reason].append(path)
        for reason, paths in by_reason.items():
            more = ', ...' if len(paths) > _SHOWN else ''
            state = state.warned(
                f'{self.name}: {len(paths)} of {len(transform.kept) + len(transform.layers)} '
                f'layers stay in float, {reason}: {", ".join(paths[:_SHOWN])}{more}'
            )
        if not has_int8_kernels():
            state = state.warned(
                f'{self.name}: this machine has no exact int8 kernels; the same numbers are '
                'computed in float, which is not faster'
            )
        state = with_weights(state.transformed(transform), runner.plain_model)
        return with_row(state, self.row, runner, state.run.trace(runner.plain_model))

    def plan(self, state: PruningState) -> str:
        return 'give linear and convolution layers int8 weights'


@dataclass(frozen=True)
class Int8Weights(Transform):
    """The linear and convolution layers that have int8 weights.

    Attributes:
        layers: their paths.
        kept: path of each other linear or convolution layer -> why it stays in float.
    """

    layers: tuple[str, ...]
    kept: Mapping[str, str] = field(default_factory=dict)

    def apply(self, model: nn.Module, handlers: Sequence[LayerHandler]) -> nn.Module:
        for path in self.layers:
            layer = _layer(model, path)
            if int8_type_for(layer) is None:
                raise RecordError(
                    f'the record has int8 weights in {path!r}, which is a {type(layer).__name__} '
                    f'in this {type(model).__name__}, not a linear or convolution layer'
                )
        for path in self.layers:
            model = _put_in(model, path)
        return model

    def to_json(self) -> Mapping[str, Any]:
        return {'layers': list(self.layers), 'kept': dict(self.kept)}

    @classmethod
    def from_json(cls, content: Field) -> Int8Weights:
        layers = tuple(entry.text() for entry in content['layers'].items())
        return cls(layers, {path: why.text() for path, why in content['kept'].entries()})


def quantize(model: nn.Module, example_inputs: ExampleInputs) -> tuple[nn.Module, Int8Weights]:
    """Put int8 layers in place of the linear and convolution layers that can be quantized.

    Args:
        model: is changed in place.
        example_inputs: for a forward pass, which shows what layers are called and what they do.

    Returns:
        The model, or what stands in its place; and the record of what was done.
    """
    reasons = _reasons(model, example_inputs)
    layers = [path for path, reason in reasons.items() if not reason]
    for path in layers:
        model = _put_in(model, path, with_weights=True)
    kept = {path: reason for path, reason in reasons.items() if reason}
    return model, Int8Weights(tuple(layers), kept)


def _layer(model: nn.Module, path: str) -> nn.Module:
    modules = dict(model.named_modules())
    if path not in modules:
        raise RecordError(
            f'the record has int8 weights in {path!r}, which this {type(model).__name__} does not '
            f'have; {nearest(path, modules)}'
        )
    return modules[path]


def _put_in(model: nn.Module, path: str, with_weights: bool = False) -> nn.Module:
    """Put the int8 layer in place of a layer; return the model, or the layer where it is that."""
    layer = _layer(model, path)
    kind = int8_type_for(layer)
    assert kind is not None
    int8 = kind(layer)
    if with_weights:
        int8.quantize(layer)
    if not path:
        return int8
    parent, _, name = path.rpartition('.')
    setattr(model.get_submodule(parent), name, int8)
    return model


def _reasons(model: nn.Module, example_inputs: ExampleInputs) -> dict[str, str]:
    """Return path of each linear or convolution layer -> why it stays in float, or ''."""
    owners: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        owners.setdefault(id(parameter), []).append(name)
    differing = _differing(model, example_inputs)
    reasons = {}
    for path, module in model.named_modules():
        if int8_type_for(module) is not None:
            reasons[path] = _reason(module, owners) or differing.get(
                path, 'its weight is read, but it is not called'
            )
        elif isinstance(module, nn.modules.conv._ConvNd):
            reasons[path] = f'there are no int8 kernels for a {type(module).__name__}'
        elif isinstance(module, nn.MultiheadAttention):
            reasons[path] = 'its in_proj_weight is not the weight of a layer'
    return reasons


def _reason(layer: Any, owners: Mapping[int, Sequence[str]]) -> str:
    """Return why a layer stays in float, as far as it can be told without a forward pass."""
    weight = layer._parameters.get('weight')
    if weight is None or layer._forward_hooks or layer._forward_pre_hooks:
        return 'its weight is computed from others, or it has hooks'
    if len(owners[id(weight)]) > 1:
        return f'its weight is shared: {", ".join(owners[id(weight)])}'
    if isinstance(layer, nn.Linear):
        # A product over a single number is left uninitialized by the kernel.
        return 'it has a single input' if layer.in_features == 1 else ''
    if layer.padding_mode != 'zeros' or isinstance(layer.padding, str):
        return f'it pads with {layer.padding_mode} by {layer.padding}'
    channels = layer.in_channels // layer.groups
    if layer.groups > 1 and channels < _FEW_CHANNELS:
        return f'its groups have {channels} channels each: int8 kernels are slower there'
    return ''


def _differing(model: nn.Module, example_inputs: ExampleInputs) -> dict[str, str]:
    """Return path of each layer that is called -> why it is not what torch's own layer is, or ''.

    A subclass may do more than its base: that is seen by comparing what both return.
    """
    paths = {module: path for path, module in model.named_modules()}
    found: dict[str, str] = {}

    def compare(module: nn.Module, args: Any, output: Any) -> None:
        if int8_type_for(module) is None or module not in paths:
            return
        plain = nn.Linear if isinstance(module, nn.Linear) else nn.Conv2d
        alike = len(args) == 1 and isinstance(output, Tensor)
        if alike and type(module) is not plain:
            alike = torch.equal(plain.forward(module, args[0]), output)  # type: ignore[arg-type]
        if not alike:
            found[paths[module]] = f'this {type(module).__name__} does more than {plain.__name__}'
        found.setdefault(paths[module], '')

    args, kwargs = call_arguments(example_inputs)
    with evaluating(model), torch.no_grad(), _each_call(compare):
        model(*args, **kwargs)
    return found


@contextlib.contextmanager
def _each_call(watch: Callable[[nn.Module, Any, Any], None]) -> Iterator[None]:
    """Call a function after each call of any module during the block.

    The hook is not the modules' own: with those, transformer layers of torch leave the fast path
    that reads weights without calling layers.
    """
    handle = nn.modules.module.register_module_forward_hook(watch)
    try:
        yield
    finally:
        handle.remove()


@hookimpl
def easypruner_components() -> Iterable[type[Component]]:
    return [Quantize, Int8Weights]
