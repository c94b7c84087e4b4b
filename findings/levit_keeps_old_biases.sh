#!/usr/bin/env bash
# transformers 5.24.0: LeViT in evaluation mode ignores changes of its attention biases.
#
# Each attention gathers its table of biases by position at its first forward in evaluation mode and
# keeps the result as a plain attribute, which only train() drops. Biases that change later, by
# load_state_dict() or a cut of heads, have no effect, and calling eval() again does not help: the
# network computes with the old ones until it has been in training mode.
#
# Seen: other biases loaded after a first pass: same outputs True, after eval() again True, after
# train() and eval() False
#
# Installs the packages in a temporary folder, runs them, and exits with 1 if they behave otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
${PYTHON:-python3} -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    torch==2.14.1 torchvision==0.29.1 transformers==5.24.0
"$folder/venv/bin/python" -W ignore - << 'PY'
import torch
from transformers import LevitConfig, LevitForImageClassification

torch.manual_seed(0)
model = LevitForImageClassification(LevitConfig(num_labels=10)).eval()
images = torch.randn(2, 3, 224, 224)


@torch.no_grad()
def outputs():
    return model(images).logits


before = outputs()
state = model.state_dict()
biases = {name: torch.randn_like(value) for name, value in state.items() if 'attention_biases' in name}
model.load_state_dict({**state, **biases})
loaded = outputs()
model.eval()
again = outputs()
model.train()
model.eval()
renewed = outputs()
print(f'other biases loaded after a first pass: same outputs {torch.equal(before, loaded)}, ', end='')
print(f'after eval() again {torch.equal(before, again)}, ', end='')
print(f'after train() and eval() {torch.equal(before, renewed)}')
assert torch.equal(before, loaded), 'the loaded biases have an effect now'
assert not torch.equal(before, renewed)
PY
