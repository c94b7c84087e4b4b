#!/usr/bin/env bash
# torchao 0.18.0: int4 leaves a layer in float if group_size does not divide its inputs, and freezes it.
#
# quantize_(model, Int4WeightOnlyConfig(group_size=32)) on a linear layer of 100 inputs, a width that
# pruning leaves easily: the weight stays in float, which only a log record of level INFO says, and it
# does not train any more, since it comes back with requires_grad=False. IntxWeightOnlyConfig with the
# same groups raises instead. An int8 weight, on the other hand, says its dtype is float32: neither
# tells whether a layer is quantized, the class of its weight does.
#
# Seen: 100 inputs: Parameter of torch.float32, requires_grad False; 37 inputs in int8: Int8Tensor of
# torch.float32
#
# Installs the packages in a temporary folder, runs them, and exits with 1 if they behave otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
${PYTHON:-python3} -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.14.1 torchao==0.18.0
"$folder/venv/bin/python" -W ignore - << 'PY'
import warnings

import torch
import torchao
from torch import nn
from torchao.quantization import (
    Int4WeightOnlyConfig,
    Int8DynamicActivationInt8WeightConfig,
    quantize_,
)
from torchao.utils import TorchAOBaseTensor

assert torchao.__version__.startswith('0.18.0'), torchao.__version__
model = nn.Sequential(nn.Linear(100, 8))
with warnings.catch_warnings(record=True) as raised:
    warnings.simplefilter('always')
    quantize_(model, Int4WeightOnlyConfig(group_size=32))
weight = model[0].weight
print(f'100 inputs: {type(weight).__name__} of {weight.dtype}, requires_grad {weight.requires_grad}')
assert not isinstance(weight, TorchAOBaseTensor), 'it is quantized now'
assert not weight.requires_grad, 'it is left as it was'
assert not [w for w in raised if 'group' in str(w.message)], 'it warns now'
model = nn.Sequential(nn.Linear(37, 8))
quantize_(model, Int8DynamicActivationInt8WeightConfig())
weight = model[0].weight
print(f'37 inputs in int8: {type(weight).__name__} of {weight.dtype}')
assert isinstance(weight, TorchAOBaseTensor) and weight.dtype == torch.float32
PY
