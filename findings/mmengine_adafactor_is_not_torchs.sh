#!/usr/bin/env bash
# mmengine 0.10.7: the optimizer "Adafactor" is not that of torch, and looking for it is not free.
#
# A config's optimizer types are the names of torch.optim's classes, with one exception. "Adafactor"
# is the class of transformers where transformers is installed, and unknown where it is not; torch's
# is "TorchAdafactor". The two take different arguments: with lr=0.01, torch's is built, and that of
# transformers raises an error, because by default it chooses the rate itself. To register the name,
# `import mmengine.optim` (so any runner) imports transformers, in every process, whatever the
# optimizer of the config is.
#
# Seen: Adafactor(lr=0.01) is a TypeError ("None is not a callable object") without transformers, a
# ValueError with it; TorchAdafactor is built in both; import mmengine.optim imports transformers:
# False without it, True with it
#
# Installs the packages in a temporary folder, runs them, and exits with 1 if they behave otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
${PYTHON:-python3} -m venv "$folder/venv"
install() { "$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@"; }
look() {
    "$folder/venv/bin/python" -W ignore - "$1" << 'PY'
import sys

import torch
from mmengine.optim import build_optim_wrapper


def build(name):
    settings = dict(optimizer=dict(type=name, lr=0.01))
    try:
        return type(build_optim_wrapper(torch.nn.Linear(2, 2), settings).optimizer).__module__
    except Exception as error:
        return type(error).__name__


imported = 'transformers' in sys.modules
found = build('Adafactor'), build('TorchAdafactor'), imported
print(f'transformers {sys.argv[1]}: Adafactor {found[0]}, TorchAdafactor {found[1]}, ', end='')
print(f'transformers imported {found[2]}')
has = sys.argv[1] == 'installed'
assert found == ('ValueError' if has else 'TypeError', 'torch.optim', has)
PY
}
install torch==2.14.1 torchvision==0.29.1 mmengine==0.10.7
look absent
install transformers==5.24.0
look installed
