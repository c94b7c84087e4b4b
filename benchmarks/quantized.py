"""Measures pruned networks in int8, and writes the tables of docs/quantization.md.

python benchmarks/quantized.py [--parts accuracy latency widths] [--quick] [--out FILE]
    [--results FILE]

The functions that quantize are those of the page itself. Times are CPU time of this process on one
thread, at batch 1, so that other processes are not counted; networks that are compared run
alternately. The weights of the networks of the latency are random: values do not change the time.
Parts that are not measured keep their earlier results.
"""

from __future__ import annotations

import argparse
import json
from datetime import datetime, timezone
from pathlib import Path

import torch
from coverage_page import machine
from quantized_measure import PACKAGES, accuracies, latencies, width_steps
from quantized_page import PAGE, write_page

from easypruner.base.files import write_json
from easypruner.base.versions import versions_of
from easypruner.plugins import load_plugins

PARTS = {'accuracy': accuracies, 'latency': latencies, 'widths': width_steps}
"""Part -> the function that measures it; its argument is whether to be quick."""
RESULTS = Path(__file__).resolve().parent / 'results' / 'quantized.json'


def main() -> None:
    """Measure, then write the results and the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--parts', nargs='+', choices=PARTS, default=list(PARTS))
    parser.add_argument('--quick', action='store_true', help='small networks, to try the script')
    parser.add_argument('--out', type=Path, default=PAGE, help='the page; its tables are replaced')
    parser.add_argument('--results', type=Path, default=RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    load_plugins()
    content = json.loads(args.results.read_text('utf-8')) if args.results.is_file() else {}
    for part in args.parts:
        content[part] = {
            'machine': machine(),
            'versions': versions_of(*PACKAGES),
            'date': datetime.now(timezone.utc).date().isoformat(),
            'results': PARTS[part](args.quick),
        }
        write_json(args.results, content)
    write_page(content, args.out)


if __name__ == '__main__':
    main()
