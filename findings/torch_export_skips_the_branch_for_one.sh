#!/usr/bin/env bash
# torch 2.14.1: a program that torch.export makes for batches "of 1 or more" may be wrong for 1.
#
# A forward may treat a single sample differently, as in `x * 2 if x.shape[0] == 1 else x * 3`. Exported
# from a larger batch with Dim('batch', min=1), the program keeps the branch of larger batches only.
# Its range of sizes still begins at 1, no guard asks for the size, and it runs on a batch of 1 with
# the outputs of the other branch. Formats that are made from it inherit that, so an export has to be
# compared on a batch of 1, not only on another large one.
#
# Seen: range of the batch from 1; batch of 3: equal True; batch of 1: runs, equal False
#
# Installs the packages in a temporary folder, runs them, and exits with 1 if they behave otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
${PYTHON:-python3} -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.14.1
"$folder/venv/bin/python" -W ignore - << 'PY'
import torch
from torch.export import Dim


class Network(torch.nn.Module):
    def forward(self, x):
        return x * 2 if x.shape[0] == 1 else x * 3


network = Network()
shapes = ({0: Dim('batch', min=1)},)
exported = torch.export.export(network, (torch.ones(4, 2),), dynamic_shapes=shapes)
(sizes,) = exported.range_constraints.values()
program = exported.module()
equal = {size: torch.equal(program(x), network(x)) for size in (3, 1) for x in [torch.ones(size, 2)]}
print(f'range of the batch from {sizes.lower}; batch of 3: equal {equal[3]}; ', end='')
print(f'batch of 1: runs, equal {equal[1]}')
assert sizes.lower == 1 and equal == {3: True, 1: False}
PY
