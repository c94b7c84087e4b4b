#!/usr/bin/env bash
# torch 2.14.1: quantize_dynamic(model, {nn.Linear}) leaves subclasses of nn.Linear in float, silently.
#
# Layers are looked up by their exact type. mmcv's Linear, which every feed-forward block of
# mmpretrain's transformers uses, is a subclass that only adds a check: half of a ViT's linear layers
# stay in float. A type that it has no quantized form of, such as nn.Conv2d, is passed over the same
# way, though it was named.
#
# Seen: Linear -> Linear (quantized), Sub -> Sub (float), Conv2d -> Conv2d (float); no warning of it
#
# Installs the packages in a temporary folder, runs them, and exits with 1 if they behave otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
${PYTHON:-python3} -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.14.1
"$folder/venv/bin/python" -W ignore - << 'PY'
import warnings

import torch
from torch import nn
from torch.ao.quantization import quantize_dynamic

assert torch.__version__.startswith('2.14.1'), torch.__version__


class Sub(nn.Linear):
    """The same arithmetic."""


model = nn.Sequential(nn.Linear(4, 4), Sub(4, 4), nn.Conv2d(4, 4, 1))
with warnings.catch_warnings(record=True) as raised:
    warnings.simplefilter('always')
    result = quantize_dynamic(model, {nn.Linear, nn.Conv2d})
for before, after in zip(model, result):
    print(f'{type(before).__name__} -> {type(after).__module__}.{type(after).__name__}')
assert 'quantized' in type(result[0]).__module__
assert type(result[1]) is Sub and type(result[2]) is nn.Conv2d, 'they are quantized now'
named = [str(w.message) for w in raised if 'Sub' in str(w.message) or 'Conv2d' in str(w.message)]
assert not named, named
PY
