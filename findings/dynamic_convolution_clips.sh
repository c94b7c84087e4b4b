#!/usr/bin/env bash
# torch 2.14.1: a dynamically quantized convolution clips its output to the range of its input.
#
# torch.ops.quantized.conv2d_dynamic quantizes its input, convolves in integers and gives the output
# the scale of the input, whatever the weights are. For inputs from 0 to 1 every output is from 0 to
# 1: the result has 90 % of relative error, on each of the engines, without a warning.
#
# Seen: engine x86: float from -13.4 to 11.2, quantized from 0.0 to 1.0, relative error 0.91
#
# Installs the packages in a temporary folder, runs them, and exits with 1 if they behave otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
${PYTHON:-python3} -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.14.1
"$folder/venv/bin/python" -W ignore - << 'PY'
import torch
from torch.nn import functional

assert torch.__version__.startswith('2.14.1'), torch.__version__
torch.manual_seed(0)
images, weight = torch.rand(1, 16, 14, 14), torch.randn(32, 16, 3, 3) / 2
expected = functional.conv2d(images, weight, padding=1)
scale = weight.abs().amax((1, 2, 3)) / 127
quantized = torch.quantize_per_channel(
    weight, scale, torch.zeros(32, dtype=torch.int64), 0, torch.qint8
)
for engine in ('x86', 'onednn', 'qnnpack'):
    torch.backends.quantized.engine = engine
    packed = torch.ops.quantized.conv2d_prepack(quantized, None, [1, 1], [1, 1], [1, 1], 1)
    result = torch.ops.quantized.conv2d_dynamic(images, packed, False)
    error = float((result - expected).norm() / expected.norm())
    print(
        f'engine {engine}: float from {expected.min():.1f} to {expected.max():.1f}, '
        f'quantized from {result.min():.1f} to {result.max():.1f}, relative error {error:.2f}'
    )
    assert float(expected.max()) > 5 and float(result.max()) <= 1.001, 'it is not clipped'
    assert error > 0.8, 'it is right now'
PY
