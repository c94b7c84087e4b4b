#!/usr/bin/env bash
# openvino 2026.4.1: save_model over the files of a loaded network ends the process with SIGBUS.
#
# read_model and compile_model map the weights of a .bin file into memory. save_model writes to a path
# in place: it truncates the file and writes it again. A network that was loaded from the path reads
# its weights from pages that are gone, in this process or in another one, and the process ends
# without an exception. That is what a loop does that converts, saves, measures and goes on with the
# next network under the same name. A new path, or a rename of a new file over the old one, is safe.
#
# Seen: saved over: ended by SIGBUS; renamed over: ended with 0
#
# Installs the packages in a temporary folder, runs them, and exits with 1 if they behave otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
${PYTHON:-python3} -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check openvino==2026.4.1 numpy==2.4.6
cat > "$folder/save.py" << 'PY'
import os
import sys

import numpy as np
import openvino
from openvino import opset13 as ops

how, folder = sys.argv[1:]


def network(width):
    images = ops.parameter([1, 1024], np.float32)
    weight = ops.constant(np.ones((1024, width), np.float32))
    return openvino.Model([ops.matmul(images, weight, False, False)], [images])


path, other = os.path.join(folder, 'network.xml'), os.path.join(folder, 'other.xml')
openvino.save_model(network(2048), path, compress_to_fp16=False)
loaded = openvino.Core().read_model(path)
if how == 'saved':
    openvino.save_model(network(1), path, compress_to_fp16=False)
else:
    openvino.save_model(network(1), other, compress_to_fp16=False)
    for suffix in ('.xml', '.bin'):
        os.replace(other[:-4] + suffix, path[:-4] + suffix)
openvino.Core().compile_model(loaded, 'CPU')(np.ones((1, 1024), np.float32))
PY
"$folder/venv/bin/python" -W ignore - "$folder" << 'PY'
import signal
import subprocess
import sys

codes = {}
for how in ('saved', 'renamed'):
    command = [sys.executable, '-W', 'ignore', f'{sys.argv[1]}/save.py', how, sys.argv[1]]
    codes[how] = subprocess.run(command, stderr=subprocess.DEVNULL).returncode
ends = {
    how: f'ended by {signal.Signals(-code).name}' if code < 0 else f'ended with {code}'
    for how, code in codes.items()
}
print('; '.join(f'{how} over: {end}' for how, end in ends.items()))
assert codes == {'saved': -signal.SIGBUS, 'renamed': 0}, codes
PY
