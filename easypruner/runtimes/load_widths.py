"""Puts the widths and weights of this folder into the original network.

It needs torch and safetensors:

from load_widths import load_widths

model = load_widths(build_the_original_network(), 'path/of/this/folder')
"""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import load_file
from torch import nn


def load_widths(model: nn.Module, folder: str | Path) -> nn.Module:
    """Turn the original network into the pruned one, in place, and return it.

    Args:
        model: the original network, on the CPU.
        folder: the folder with model.safetensors and widths.json.
    """
    folder = Path(folder)
    weights = load_file(folder / 'model.safetensors')
    content = json.loads((folder / 'widths.json').read_text(encoding='utf-8'))
    modules = dict(model.named_modules())
    for path, numbers in content['numbers'].items():
        for name, value in numbers.items():
            # JSON has no tuples.
            old = getattr(modules[path], name, value)
            setattr(modules[path], name, tuple(value) if isinstance(old, tuple) else value)
    for path in content['attributes']:
        module, _, name = path.rpartition('.')
        setattr(modules[module], name, weights.pop(path))
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    missing = sorted(weights.keys() - tensors.keys())
    if missing:
        raise ValueError(f'the network has no {missing[0]!r}: it is not the one that was pruned')
    for name, value in weights.items():
        tensors[name].data = value
    return model
