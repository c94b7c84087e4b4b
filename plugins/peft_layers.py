"""Layer handlers for PEFT: a LoRA knows its rank, its scale and the widths of what it adapts."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch

from easypruner import LayerHandler, hookimpl

_FIRST = ('lora_A', 'lora_embedding_A')


class PeftLora(LayerHandler):
    """Sets the rank of each adapter, and the widths of the layer that it adapts.

    The factor by which an adapter is scaled stays what it was trained with, so ``lora_alpha``, from
    which PEFT computes it again, follows the rank.
    """

    handles = ('peft.tuners.lora.layer.LoraLayer',)
    inner: ClassVar = True

    def resize(self, layer: Any, shapes: Mapping[str, torch.Size]) -> None:
        for name, shape in shapes.items():
            adapter = _adapter(name)
            if adapter in layer.r:
                before, after = layer.r[adapter], shape[0]
                alpha = layer.lora_alpha[adapter]
                by_root = not math.isclose(layer.scaling[adapter], alpha / before)
                ratio = math.sqrt(after / before) if by_root else after / before
                layer.r = {**layer.r, adapter: after}
                layer.lora_alpha = {**layer.lora_alpha, adapter: alpha * ratio}
            elif name == 'base_layer.weight':
                layer.in_features, layer.out_features = layer._get_in_out_features(
                    layer.get_base_layer()
                )


class PeftModelOfLora(LayerHandler):
    """Notes the rank of each layer in the config of its adapter, from which PEFT loads it."""

    handles = ('peft.tuners.lora.model.LoraModel',)
    inner: ClassVar = True

    def resize(self, layer: Any, shapes: Mapping[str, torch.Size]) -> None:
        configs = dict(layer.peft_config)
        for name, shape in shapes.items():
            adapter = _adapter(name)
            if adapter not in configs:
                continue
            path = name.rpartition('.lora_')[0]
            alpha = layer.get_submodule(path).lora_alpha[adapter]
            pattern = path.removeprefix('model.')
            changed = configs[adapter] = copy.copy(configs[adapter])
            changed.rank_pattern = _first(pattern, shape[0], changed.rank_pattern)
            changed.alpha_pattern = _first(pattern, alpha, changed.alpha_pattern)
        layer.peft_config = configs


def _adapter(name: str) -> str | None:
    """Return the adapter whose first factor is a tensor of a layer's parts; None for another.

    >>> _adapter('model.mlp.lora_A.default.weight'), _adapter('lora_B.default.weight')
    ('default', None)
    """
    parts = name.split('.')
    places = [place for place, part in enumerate(parts[:-1]) if part in _FIRST]
    return parts[places[-1] + 1] if places else None


def _first(pattern: str, value: Any, others: Mapping[str, Any]) -> dict[str, Any]:
    """Return a mapping with an entry before others, because PEFT takes the first that fits."""
    return {pattern: value, **{key: old for key, old in others.items() if key != pattern}}


easypruner_components = hookimpl(lambda: [PeftLora, PeftModelOfLora])
