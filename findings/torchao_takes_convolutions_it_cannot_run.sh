#!/usr/bin/env bash
# torchao 0.18.0: int8 configs quantize a Conv2d without complaint; the forward pass then fails.
#
# quantize_ takes a filter that says which layers to quantize. Given nn.Conv2d, it replaces the weight
# of a 3 x 3 convolution, and the first forward pass raises NotImplementedError. A 1 x 1 convolution
# makes quantize_ itself raise, after it has quantized the layers before: the model is left half done.
#
# Seen: Int8Tensor, then NotImplementedError in forward; RuntimeError in quantize_, layers Int8Tensor,
# Parameter, Parameter
#
# Installs the packages in a temporary folder, runs them, and exits with 1 if they behave otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
${PYTHON:-python3} -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.14.1 torchao==0.18.0
"$folder/venv/bin/python" -W ignore - << 'PY'
import torch
import torchao
from torch import nn
from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

assert torchao.__version__.startswith('0.18.0'), torchao.__version__


def wanted(module: nn.Module, path: str) -> bool:
    return isinstance(module, (nn.Linear, nn.Conv2d))


model = nn.Sequential(nn.Conv2d(3, 8, 3))
quantize_(model, Int8DynamicActivationInt8WeightConfig(), wanted)
kind = type(model[0].weight).__name__
try:
    model(torch.rand(1, 3, 8, 8))
except NotImplementedError as error:
    print(f'{kind}, then {type(error).__name__} in forward')
else:
    raise SystemExit('it runs now')
assert kind == 'Int8Tensor'
model = nn.Sequential(nn.Linear(8, 8), nn.Conv2d(8, 8, 1), nn.Linear(8, 8))
try:
    quantize_(model, Int8DynamicActivationInt8WeightConfig(), wanted)
except RuntimeError as error:
    kinds = [type(layer.weight).__name__ for layer in model]
    print(f'{type(error).__name__} in quantize_, layers {", ".join(kinds)}')
    assert kinds == ['Int8Tensor', 'Parameter', 'Parameter'], kinds
else:
    raise SystemExit('it takes 1 x 1 convolutions now')
PY
