#!/usr/bin/env bash
# torch 2.14.1: to remove a parametrization from a deep copy of a layer breaks the original layer.
#
# A layer under a parametrization gets a class of its own, which has the weight as a property. A copy
# shares this class, and remove_parametrizations() deletes the property from it. So a network cannot
# be copied to be exported with plain weights: the original has no weight any more.
#
# Seen: before: runs; after the copy's was removed: 'ParametrizedLinear' object has no attribute
# 'weight'
#
# Installs the packages in a temporary folder, runs them, and exits with 1 if they behave otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
${PYTHON:-python3} -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.14.1
"$folder/venv/bin/python" -W ignore - << 'PY'
import copy

import torch
from torch import nn
from torch.nn.utils.parametrizations import orthogonal
from torch.nn.utils.parametrize import remove_parametrizations

assert torch.__version__.startswith('2.14.1'), torch.__version__


def result(layer: nn.Module) -> str:
    try:
        layer(torch.ones(1, 4))
    except AttributeError as error:
        return str(error)
    return 'runs'


layer = orthogonal(nn.Linear(4, 4))
twin = copy.deepcopy(layer)
before = result(layer)
remove_parametrizations(twin, 'weight')
after = result(layer)
print(f"before: {before}; after the copy's was removed: {after}")
assert before == 'runs'
assert after == "'ParametrizedLinear' object has no attribute 'weight'"
PY
