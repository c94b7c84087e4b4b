#!/usr/bin/env bash
# mmpretrain 1.2.0: the accuracy of a classifier that is always right can be above 100 %.
#
# Accuracy multiplies the number of right predictions by 100 / number, both in single precision. For
# some numbers of samples the product is above 100, for others below, so that a comparison with 100,
# or a check that a percentage is from 0 to 100, fails for a perfect result.
#
# Seen: 360 samples, all right: 100.00000762939453; of 1 to 2000 samples 118 above 100, 98 below
#
# Installs the packages in a temporary folder, runs them, and exits with 1 if they behave otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
${PYTHON:-python3} -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    torch==2.14.1 torchvision==0.29.1 mmengine==0.10.7 mmcv-lite==2.2.0 mmpretrain==1.2.0
"$folder/venv/bin/python" -W ignore - << 'PY'
import torch
from mmpretrain.evaluation import Accuracy


def accuracy(samples):
    labels = torch.zeros(samples, dtype=torch.int64)
    scores = torch.nn.functional.one_hot(labels, 10).float()
    return Accuracy.calculate(scores, labels)[0][0].item()


above = [n for n in range(1, 2001) if accuracy(n) > 100]
below = [n for n in range(1, 2001) if accuracy(n) < 100]
print(f'360 samples, all right: {accuracy(360)!r}; ', end='')
print(f'of 1 to 2000 samples {len(above)} above 100, {len(below)} below')
assert accuracy(360) > 100 and below, 'it is 100 now'
PY
