"""Lists the operations of ATen without a rule, and the models of seven libraries that meet them.

python benchmarks/operations.py [--source timm] [--only PATTERN] [--limit 30]

The models are those of benchmarks/coverage.py. Each is built without values and recorded once, in
a process of its own. Results are appended to a file of JSON lines, and models in it are not
recorded again. At the end, docs/operations.md is written.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from models import SOURCES, Entry, entries

from easypruner.graph.coupling.rules.registration import has_rule
from easypruner.graph.recording.inventory import StandIns
from easypruner.graph.recording.tape import Tape, name_of, record

ROOT = Path(__file__).resolve().parent.parent
_WORK_DIR = ROOT / 'work_dirs' / 'operations'
# A child inherits the imported libraries, which take longer to import than a model to record.
_CONTEXT = multiprocessing.get_context('fork')
_OF_TRAINING = ('backward', '_foreach_', '_fused_', '_amp_', '_test_', 'loss')
_OF_OTHER_DEVICES = ('cudnn', 'miopen', 'mkldnn', '_mps', 'mps_', 'cslt', '_flash_', '_efficient_')

_PAGE = """# Operations without a rule

Written by `python benchmarks/operations.py` with torch {version}.

The forward pass of a network is a list of operations of ATen, and
[a rule](channel-graph.md#a-rule-for-an-operation) says of each which channels it couples. An
operation without a rule freezes the channels of its inputs. This page counts those that can be on
the list of a forward pass: they take and return tensors, and do not consist of others.

| | operations |
| -- | --: |
| with a rule of their own | {ruled} |
| pointwise, which need none | {pointwise} |
| without a rule | {without} |

**The goal is that no model meets one.** Of {models} models of {libraries} in evaluation mode
({unread} more do not run on the example inputs, or not within the limit), {share}
meet an operation without a rule{met}.

## All of them

Operations of training and of other devices than those on which a network is traced are left out.

{names}
"""


def main() -> None:
    """Record the models without a result, then write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--source', choices=SOURCES, help='the one library to try')
    parser.add_argument('--only', default='', help='a regular expression for names and families')
    parser.add_argument('--limit', type=float, default=30, help='seconds for one model')
    parser.add_argument('--out', type=Path, default=ROOT / 'docs' / 'operations.md')
    parser.add_argument('--resume', type=Path, default=_WORK_DIR / 'results.jsonl')
    parser.add_argument('--page', action='store_true', help='record nothing, write the page')
    args = parser.parse_args()
    found = load(args.resume)
    args.resume.parent.mkdir(parents=True, exist_ok=True)
    for source in () if args.page else [args.source] if args.source else SOURCES:
        with args.resume.open('a', encoding='utf-8') as file:
            for entry in entries(source, args.only, ROOT / 'work_dirs' / 'coverage', 1):
                if (source, entry.name) not in found:
                    without = _met_in_time(entry, args.limit)
                    found[source, entry.name] = without
                    print(json.dumps([source, entry.name, without]), file=file, flush=True)
                    print(source, entry.name, 'not recorded' if without is None else without)
    args.out.write_text(page(found), encoding='utf-8')


Met = Mapping[tuple[str, str], Sequence[str] | None]
"""(library, model) -> the operations without a rule that it meets; None if it was not recorded."""


def load(path: Path) -> dict[tuple[str, str], list[str] | None]:
    """Return the results in a file of JSON lines; none if there is no file."""
    lines = path.read_text(encoding='utf-8').splitlines() if path.is_file() else []
    return {(source, name): met for source, name, met in map(json.loads, lines)}


def page(met: Met) -> str:
    """Return the text of the page."""
    kinds: dict[str, list[str]] = {'rule': [], 'pointwise': [], '': []}
    for name, overloads in operations():
        kinds[_kind(overloads)].append(name)
    recorded = {model: names for model, names in met.items() if names is not None}
    meeting = {model: names for model, names in recorded.items() if names}
    by_name: dict[str, list[str]] = {}
    for (_, model), names in meeting.items():
        for name in names:
            by_name.setdefault(name, []).append(model)
    rows = ''.join(f'\n- `{n}`: {len(by_name[n])}, as {by_name[n][0]}' for n in sorted(by_name))
    names = ', '.join(f'`{name}`' for name in kinds[''])
    return _PAGE.format(
        version=torch.__version__.partition('+')[0],
        ruled=len(kinds['rule']),
        pointwise=len(kinds['pointwise']),
        without=len(kinds['']),
        models=len(recorded),
        unread=len(met) - len(recorded),
        libraries=', '.join(sorted({source for source, _ in recorded})) or 'no library',
        share=f'{len(meeting)}' if meeting else 'none',
        met=f':\n{rows}' if rows else '',
        names='\n'.join(textwrap.wrap(names, 100, break_on_hyphens=False, break_long_words=False)),
    )


def operations() -> Iterator[tuple[str, list[Any]]]:
    """Yield (name, overloads) of each operation that can be on the tape of a forward pass."""
    found: dict[str, list[Any]] = {}
    for full in sorted(torch._C._dispatch_get_all_op_names()):
        name, _, overload = full.removeprefix('aten::').partition('.')
        if not full.startswith('aten::') or _is_left_out(name):
            continue
        try:
            func = getattr(getattr(torch.ops.aten, name), overload or 'default')
        except AttributeError:  # such as an operation of TorchScript
            continue
        if _is_recorded(full, func._schema):
            base = name if name.endswith('__') else name.removesuffix('_')
            found.setdefault(base, []).append(func)
    yield from sorted(found.items())


def _is_left_out(name: str) -> bool:
    return any(part in name for part in (*_OF_TRAINING, *_OF_OTHER_DEVICES))


def _is_recorded(full: str, schema: Any) -> bool:
    """Return whether an operation takes and returns tensors, and does not consist of others."""
    if torch._C._dispatch_has_kernel_for_dispatch_key(full, 'CompositeImplicitAutograd'):
        return False
    if any(argument.is_out for argument in schema.arguments):
        return False
    sides = (schema.arguments, schema.returns)
    return all(any('Tensor' in str(entry.type) for entry in side) for side in sides)


def _kind(overloads: Sequence[Any]) -> str:
    if not all(map(has_rule, overloads)):
        return ''
    tagged = any(torch.Tag.pointwise in func.tags for func in overloads)
    return 'pointwise' if tagged else 'rule'


def met_by(entry: Entry) -> list[str]:
    """Return the operations without a rule that a model meets in evaluation mode."""
    try:
        with torch.device('meta'):
            tape = _record(entry)
    except Exception:  # it asks for values while it is built
        tape = _record(entry)
    # What returns no tensor, such as the question for a device, couples no channels.
    met = {name_of(op.func) for op in tape.operations if op.outputs and not has_rule(op.func)}
    return sorted(met)


def _record(entry: Entry) -> Tape:
    model, inputs = entry.build()
    return record(StandIns(model), inputs)


def _met_in_time(entry: Entry, limit: float) -> list[str] | None:
    receiver, sender = _CONTEXT.Pipe(duplex=False)
    process = _CONTEXT.Process(target=_report, args=(entry, sender))
    process.start()
    sender.close()
    try:
        found: list[str] | None = receiver.recv() if receiver.poll(limit) else None
    except EOFError:
        found = None
    process.kill()
    process.join()
    return found


def _report(entry: Entry, sender: Connection) -> None:
    sender.send(met_by(entry))


if __name__ == '__main__':
    main()
