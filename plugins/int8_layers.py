"""Stage and transform: int8 weights and dynamically quantized activations, for CPUs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from easypruner import LayerHandler, Transform, hookimpl
from easypruner.base.json_fields import Field
from easypruner.base.modules import evaluating
from easypruner.errors import RecordError, nearest
from easypruner.graph.recording.tape import ExampleInputs, call_arguments
from easypruner.strategies.stages.stage import RowStage

from ._int8 import has_int8_kernels, int8_type_for

if TYPE_CHECKING:
    from easypruner.strategies.stages.forecast import Forecast
    from easypruner.strategies.stages.state import PruningState

_FEW_CHANNELS = 8
"""The channels of a convolution's group below which int8 kernels are slower than float ones."""
_SHOWN = 3
"""The number of layers that a warning names."""


class Quantize(RowStage, row='quantized'):
    """Gives linear and convolution layers int8 weights, and quantizes activations dynamically.

    Activations get their scales when they are computed, so no data is needed (dynamic quantization;
    the arithmetic is that of Jacob et al., 2018, arXiv 1712.05877). The weights file shrinks to
    about a quarter. The result can be evaluated and saved, but no longer trained or cut. Layers
    that stay in float are reported with the reason.

    Use when:
        The pruned network runs on a CPU with VNNI instructions, or its file has to be small. Put
        the stage last.

    Fails when:
        The machine has no exact int8 kernels: then the same numbers are computed in float, which is
        not faster; a warning says so. Depthwise convolutions and layers with shared or computed
        weights stay in float. The network runs on a GPU.

    Values:
        No arguments are needed. Compare the row before and after it in the final table.
    """

    def forecast(self, before: Forecast) -> Forecast:
        before.check_not_fixed()
        return replace(before, fixed=f'stage {self.name!r} has made the weights integers')

    def run(self, state: PruningState) -> PruningState:
        """Quantize, save the weights and the record, evaluate."""
        # These import MMEngine, and load_pruned must find the transform without it.
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
                f'{self.name}: this machine does not have exact int8 kernels; the same numbers are '
                'computed in float, which is not faster'
            )
        state = with_weights(state.transformed(transform), runner.plain_model)
        return with_row(state, self.row, runner, state.run.trace(runner.plain_model))

    def plan(self, state: PruningState) -> str:
        return 'give linear and convolution layers int8 weights'


@dataclass(frozen=True)
class Int8Weights(Transform):
    """The transform that gives linear and convolution layers int8 weights.

    Attributes:
        layers: the paths of these layers.
        kept: path -> reason, for each linear or convolution layer that stays in float.
    """

    layers: tuple[str, ...]
    kept: Mapping[str, str] = field(default_factory=dict)

    def apply(self, model: nn.Module, handlers: Sequence[LayerHandler]) -> nn.Module:
        for path in self.layers:
            layer = _layer(model, path)
            if int8_type_for(layer) is None:
                raise RecordError(
                    f'the record has int8 weights in {path!r}, but in this {type(model).__name__} '
                    f'this is a {type(layer).__name__}; expected a linear or convolution layer'
                )
        for path in self.layers:
            model = _replace_layer(model, path)
        return model

    def to_json(self) -> Mapping[str, Any]:
        return {'layers': list(self.layers), 'kept': dict(self.kept)}

    @classmethod
    def from_json(cls, content: Field) -> Int8Weights:
        layers = tuple(entry.text() for entry in content['layers'].items())
        return cls(layers, {path: why.text() for path, why in content['kept'].entries()})


def quantize(model: nn.Module, example_inputs: ExampleInputs) -> tuple[nn.Module, Int8Weights]:
    """Replace the linear and convolution layers that can be quantized by int8 layers.

    Args:
        model: the network; it is changed in place.
        example_inputs: inputs for a forward pass, which finds the layers that are called.

    Returns:
        The network, which is another object if the network is a single layer, and the transform.
    """
    reasons = _reasons(model, example_inputs)
    layers = [path for path, reason in reasons.items() if not reason]
    for path in layers:
        model = _replace_layer(model, path, with_weights=True)
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


def _replace_layer(model: nn.Module, path: str, with_weights: bool = False) -> nn.Module:
    """Replace a layer by its int8 layer; return the model, or the layer if it is the model."""
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
    """Return path -> why the layer stays in float, or '', for each linear or convolution layer."""
    owners: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        owners.setdefault(id(parameter), []).append(name)
    differing = _differing(model, example_inputs)
    reasons = {}
    for path, module in model.named_modules():
        if int8_type_for(module) is not None:
            reasons[path] = _reason(module, owners) or differing.get(
                path, 'another module reads its weight without calling it'
            )
        elif isinstance(module, nn.modules.conv._ConvNd):
            reasons[path] = f'there are no int8 kernels for a {type(module).__name__}'
        elif isinstance(module, nn.MultiheadAttention):
            reasons[path] = 'its in_proj_weight is not the weight of a layer'
    return reasons


def _reason(layer: Any, owners: Mapping[int, Sequence[str]]) -> str:
    """Return why a layer stays in float, if this is known without a forward pass; else ''."""
    weight = layer._parameters.get('weight')
    if weight is None or layer._forward_hooks or layer._forward_pre_hooks:
        return 'its weight is computed from other tensors, or it has hooks'
    if len(owners[id(weight)]) > 1:
        return f'its weight is shared: {", ".join(owners[id(weight)])}'
    if isinstance(layer, nn.Linear):
        # The kernel does not initialize the result of a product over a single number.
        return 'it has a single input' if layer.in_features == 1 else ''
    if layer.padding_mode != 'zeros' or isinstance(layer.padding, str):
        return f'it pads with {layer.padding_mode} by {layer.padding}'
    channels = layer.in_channels // layer.groups
    if layer.groups > 1 and channels < _FEW_CHANNELS:
        return f'its groups have {channels} channels each: int8 kernels are slower there'
    return ''


def _differing(model: nn.Module, example_inputs: ExampleInputs) -> dict[str, str]:
    """Return path -> how the layer differs from torch's own, or '', for each called layer.

    A subclass may do more than its base class. This is found by comparing their outputs.
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
    # A global hook: with hooks on modules, torch's transformer layers would leave the fast path,
    # which reads weights without calling layers.
    handle = nn.modules.module.register_module_forward_hook(compare)
    with evaluating(model), torch.no_grad(), handle:
        model(*args, **kwargs)
    return found


easypruner_components = hookimpl(lambda: [Quantize, Int8Weights])
