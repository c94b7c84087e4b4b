"""Tries EasyPruner on the models of seven libraries.

python benchmarks/coverage.py [--source torchvision timm] [--only PATTERN] [--workers 2]

Each model is measured in its own process with a time limit. Results are appended to a file of JSON
lines, and models with a result in this file are not measured again. At the end, docs/coverage.md is
written from the file.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict
from multiprocessing.connection import Connection
from pathlib import Path

from coverage_check import check
from coverage_page import page
from coverage_parts import random_section
from coverage_result import Result
from models import SOURCES, Entry, entries, package_of

ROOT = Path(__file__).resolve().parent.parent
_WORK_DIR = ROOT / 'work_dirs' / 'coverage'
# A server imports the libraries once and forks a process for each model.
_CONTEXT = multiprocessing.get_context('forkserver')
_LOADED = {
    'mmpretrain': ('mmpretrain.models',),
    'transformers': ('transformers.modeling_utils', 'transformers.generation'),
    'diffusers': ('diffusers.models.modeling_utils',),
    'ultralytics': ('ultralytics.models',),
}
"""Package -> the modules that load what its models need, where the package itself does not."""

# Used if a library does not state the number of parameters of a model.
_USUAL_SIZE = 30_000_000


def main() -> None:
    """Measure the models without a result, then write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--source', choices=SOURCES, nargs='+', default=SOURCES, help='the libraries to try'
    )
    parser.add_argument('--title', default='Which models can be pruned', help='that of the page')
    parser.add_argument('--only', default='', help='a regular expression for names and families')
    parser.add_argument('--workers', type=int, default=2, help='models that are measured at once')
    parser.add_argument('--limit', type=float, default=300, help='seconds for one model')
    parser.add_argument('--out', type=Path, default=ROOT / 'docs' / 'coverage.md')
    parser.add_argument('--resume', type=Path, default=_WORK_DIR / 'results.jsonl')
    parser.add_argument(
        '--random',
        type=Path,
        default=_WORK_DIR / 'random_networks.json',
        help='the results of benchmarks/random_networks.py, for a section of the page',
    )
    parser.add_argument(
        '--page', action='store_true', help='measure nothing; write what has been measured so far'
    )
    args = parser.parse_args()
    found = [e for s in args.source for e in entries(s, args.only, _WORK_DIR, args.workers)]
    every = len(found)
    results = load(args.resume)
    left = [entry for entry in found if (entry.source, entry.name) not in results]
    if args.page:
        found, left = [entry for entry in found if entry not in left], []
    args.resume.parent.mkdir(parents=True, exist_ok=True)
    with args.resume.open('a', encoding='utf-8') as file:
        for result in measure(left, args.workers, args.limit):
            results[result.source, result.name] = result
            file.write(json.dumps(asdict(result)) + '\n')
            file.flush()
            print(_line(result), flush=True)
    # In the order of the lists of the libraries.
    rows = [results[entry.source, entry.name] for entry in found]
    text = page(rows, missing=every - len(rows), title=args.title)
    args.out.write_text(text + random_section(args.random), encoding='utf-8')


def load(path: Path) -> dict[tuple[str, str], Result]:
    """Return the results in a file of JSON lines; an empty list if there is no file."""
    if not path.is_file():
        return {}
    lines = path.read_text(encoding='utf-8').splitlines()
    results = [Result(**json.loads(line)) for line in lines]
    return {(result.source, result.name): result for result in results}


def measure(left: Sequence[Entry], workers: int, limit: float) -> Iterator[Result]:
    """Measure models in their own processes, small ones first; yield each result when it is known.

    Args:
        left: the models.
        workers: the number of models that are measured at the same time.
        limit: the time limit for each model in seconds.
    """
    packages = {package_of(entry.source) for entry in left}
    loaded = [module for package in packages for module in _LOADED.get(package, (package,))]
    _CONTEXT.set_forkserver_preload(['easypruner.cli.find_network', *loaded])
    with ThreadPoolExecutor(workers) as pool:
        jobs = [pool.submit(_measure, e, limit) for e in sorted(left, key=_size)]
        for job in as_completed(jobs):
            yield job.result()


def _size(entry: Entry) -> int:
    return entry.size or _USUAL_SIZE


def _measure(entry: Entry, limit: float) -> Result:
    receiver, sender = _CONTEXT.Pipe(duplex=False)
    process = _CONTEXT.Process(target=_report, args=(entry, sender))
    process.start()
    sender.close()
    status, error, start = 'timeout', f'not done after {limit:.0f} s', time.monotonic()
    try:
        if receiver.poll(limit):
            result: Result = receiver.recv()
            return result
    except EOFError:
        seconds = time.monotonic() - start
        status, error = 'failed', f'the process ended without a result after {seconds:.0f} s'
    finally:
        process.kill()
        process.join()
    return Result(entry.source, entry.name, entry.family, status, error)


def _report(entry: Entry, sender: Connection) -> None:
    sender.send(check(entry))


def _line(result: Result) -> str:
    state = 'ok' if result.handled else result.status if result.error else 'differs'
    unsupported = sum(result.frozen('unsupported').values())
    return f'{result.source} {result.name}: {state}, {unsupported} unsupported {result.error}'


if __name__ == '__main__':
    main()
