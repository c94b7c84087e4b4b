"""The command ``easypruner benchmark``: times networks side by side."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from easypruner.cli.export import DEFAULT_RUNTIME, NetworkArguments
from easypruner.cli.options import flag, option, parse_seconds, positional

if TYPE_CHECKING:
    from easypruner.runtimes.candidates import Candidate


def _count(text: str) -> int:
    """Convert the text of an option to a whole number of at least 1."""
    number = int(text) if text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f'{text!r} is not a whole number of at least 1')
    return number


@dataclass(frozen=True, kw_only=True)
class BenchmarkArguments(NetworkArguments):
    """The arguments of ``easypruner benchmark``."""

    subjects: Sequence[str] = positional(
        'folder of a finished run; record (architecture.json); config; model of torchvision, '
        'mmpretrain or timm; FILE.py:FUNCTION; or what was exported: the folder of an export, or a '
        'file *.onnx. The first is the one to compare with',
        nargs='+',
        metavar='WORK_DIR|RECORD|CONFIG|MODEL|EXPORT',
    )
    batch: Sequence[int] = option(
        'numbers of samples of a pass; default: 1', nargs='+', type=_count, default=[1], metavar='N'
    )
    threads: int = option('threads of a pass; default: 1', type=_count, default=1, metavar='N')
    repeats: int = option(
        'least number of passes; default: 20', type=_count, default=20, metavar='N'
    )
    seconds: float = option(
        'least time of all passes with one runtime and batch; default: 2',
        type=parse_seconds,
        default=2.0,
        metavar='S',
    )
    clock: Literal['wall', 'cpu'] = option(
        'wall: the time that passes; cpu: the time of this process on all its threads, which other '
        'processes delay less; default: wall',
        choices=('wall', 'cpu'),
        default='wall',
    )
    no_memory: bool = flag('do not measure the memory')
    no_unpruned: bool = flag('leave out the unpruned networks of runs and records')
    json: str | None = option('write the results to this file', metavar='FILE')
    overwrite: bool = flag('replace an existing file of results')


def benchmark(arguments: BenchmarkArguments) -> int:
    """Time networks, and print a table.

    Raises:
        EasyPrunerError: there is no such network or runtime, or nothing could be measured.
    """
    # These modules import torch and MMEngine, and --help has to be fast.
    from easypruner.base.files import write_json
    from easypruner.report.text import report_console
    from easypruner.runtimes.benchmark_table import print_benchmark
    from easypruner.runtimes.benchmarking import benchmark_networks
    from easypruner.slimming.deploying import runtimes_of

    file = Path(arguments.json) if arguments.json else None
    _check_file(file, arguments.overwrite)
    arguments.load_plugins()
    runtimes = runtimes_of(arguments.runtime or DEFAULT_RUNTIME, threads=arguments.threads)
    found = benchmark_networks(
        list(_distinct(_candidates(arguments))),
        runtimes,
        arguments.batch,
        repeats=arguments.repeats,
        seconds=arguments.seconds,
        memory=not arguments.no_memory,
        clock=arguments.clock,
    )
    print_benchmark(found, report_console())
    if file is not None:
        write_json(file, found.to_json())
        print(f'wrote {file}')
    return 0


def _check_file(file: Path | None, overwrite: bool) -> None:
    from easypruner.errors import EasyPrunerError

    if file is not None and file.is_dir():
        raise EasyPrunerError(f'{str(file)!r} is a folder; expected the path of a file')
    if file is not None and file.exists() and not overwrite:
        raise EasyPrunerError(
            f'{str(file)!r} exists; replace it with --overwrite, or choose another name'
        )


def _candidates(arguments: BenchmarkArguments) -> Iterator[Candidate]:
    """Yield the networks; an unpruned one before the first network that was made of it."""
    from easypruner.cli.find_exported import find_exported
    from easypruner.cli.find_pruned import find_pruned
    from easypruner.runtimes.candidates import Candidate

    seen: set[tuple[object, ...]] = set()
    for name in arguments.subjects:
        exported = find_exported(
            name,
            arguments.input_shape,
            arguments.runtime or [DEFAULT_RUNTIME],
            unpruned=not arguments.no_unpruned,
        )
        if exported:
            yield from exported
            continue
        found = find_pruned(name, arguments.input_shape, arguments, arguments.model)
        unpruned = None if arguments.no_unpruned else found.unpruned
        if unpruned is not None:
            shapes = tuple((key, tuple(t.shape)) for key, t in unpruned.state_dict().items())
            # Runs of the same network share the unpruned one: its time does not depend on weights.
            if (type(unpruned), shapes) not in seen:
                seen.add((type(unpruned), shapes))
                yield Candidate(f'{name} (unpruned)', unpruned, found.subject.inputs)
        yield Candidate(name, found.subject.model, found.subject.inputs)


def _distinct(candidates: Iterable[Candidate]) -> Iterator[Candidate]:
    """Yield the networks, with a number at names that occur again."""
    seen: Counter[str] = Counter()
    for candidate in candidates:
        seen[candidate.name] += 1
        number = seen[candidate.name]
        yield candidate if number == 1 else replace(candidate, name=f'{candidate.name} #{number}')
