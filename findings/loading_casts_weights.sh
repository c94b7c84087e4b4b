#!/usr/bin/env bash
# torch 2.14.1: load_state_dict(strict=True) casts between float and int8 without a word.
#
# A quantized network has int8 weights under the names of the float ones. Loading the float file into
# it succeeds: every weight between -1 and 1 becomes 0, and 300 becomes 44. Loading int8 weights into
# the float network succeeds too. Strict loading compares names and shapes, never types.
#
# Seen: <All keys matched successfully> [[0, 0], [0, 0]]; 300.0 -> 44; int8 -> [[127.0, -3.0]]
#
# Installs the packages in a temporary folder, runs them, and exits with 1 if they behave otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
${PYTHON:-python3} -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.14.1
"$folder/venv/bin/python" -W ignore - << 'PY'
import torch
from torch import nn

assert torch.__version__.startswith('2.14.1'), torch.__version__
quantized = nn.Module()
quantized.register_buffer('weight', torch.ones(2, 2, dtype=torch.int8))
plain = nn.Linear(2, 2, bias=False)
nn.init.constant_(plain.weight, 0.6)
print(quantized.load_state_dict(plain.state_dict(), strict=True), quantized.weight.tolist())
assert not quantized.weight.any(), 'it is refused, or not cut to zero'
quantized.load_state_dict({'weight': torch.full((2, 2), 300.0)}, strict=True)
print('300.0 ->', quantized.weight[0, 0].item())
assert quantized.weight[0, 0] == 44
plain.load_state_dict({'weight': torch.tensor([[127, -3], [5, 1]], dtype=torch.int8)}, strict=True)
print('int8 ->', plain.weight[:1].tolist())
assert plain.weight.dtype == torch.float32 and plain.weight[0, 0] == 127
PY
