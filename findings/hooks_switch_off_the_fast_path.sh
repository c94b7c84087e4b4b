#!/usr/bin/env bash
# torch 2.14.1: a forward hook on a layer of nn.TransformerEncoderLayer changes which layers are called.
#
# In evaluation the fused path reads the weights of linear1 and never calls it. A hook on linear1, as
# code that looks for the layers a network uses registers it, switches the fused path off: the hook
# reports a call that does not happen without it. A global hook
# (torch.nn.modules.module.register_module_forward_pre_hook) leaves the fused path on.
#
# Seen: calls of linear1: 0; with a hook on it: 1; with a global hook: 0
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
layer = nn.TransformerEncoderLayer(8, 2, batch_first=True).eval()
forward, calls = layer.linear1.forward, []
layer.linear1.forward = lambda x: calls.append(1) or forward(x)


def counted() -> int:
    calls.clear()
    with torch.no_grad():
        layer(torch.rand(1, 3, 8))
    return len(calls)


plain = counted()
hook = layer.linear1.register_forward_pre_hook(lambda module, args: None)
own = counted()
hook.remove()
hook = nn.modules.module.register_module_forward_pre_hook(lambda module, args: None)
everywhere = counted()
print(f'calls of linear1: {plain}; with a hook on it: {own}; with a global hook: {everywhere}')
assert (plain, own, everywhere) == (0, 1, 0)
PY
