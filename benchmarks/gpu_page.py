"""The section on GPUs of docs/latency.md, from the results of benchmarks/gpu.py."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

Results = Mapping[str, Any]
"""The content of benchmarks/results/gpu.json, or a part of it."""

_RUNTIMES = {
    'channels_last': 'torch, channels_last',
    'cuda_graph': 'a CUDA graph of these kernels',
    'compiled': 'torch.compile',
    'tensorrt': 'TensorRT',
}
"""Section -> how the page calls it."""
_UNPRUNED = 'unpruned'

_HEAD = """## On a GPU

Measured by `python benchmarks/gpu.py` on {card}{memory}, with torch {torch}, CUDA {cuda} and cuDNN
{cudnn}, on {date}: random weights, half the MACs by L1 norms, widths on grids. The networks of a
row take turns. A cell is the time of a pass as a share of the unpruned network's: the median over
windows, with the quartiles. **Bold** is slower than unpruned; `=` are shares that do not differ
from 1 by more than the noise.
"""


def section(results: Results) -> str:
    """Return the section as Markdown.

    Args:
        results: the content of the file that benchmarks/gpu.py writes. Sections may be missing.
    """
    parts = results['sections']
    versions = results['versions']
    memory = results.get('memory_gib')
    head = _HEAD.format(
        card=results['card'],
        memory=f' ({memory:.0f} GiB)' if memory else '',
        torch=versions['torch'],
        cuda=versions.get('cuda') or 'none',
        cudnn=versions.get('cudnn') or 'none',
        date=results['date'],
    )
    if results['shrunk']:
        head += '\nThis was a trial with a tiny network: its figures mean nothing.\n'
    lines = [head]
    for name, title in _RUNTIMES.items():
        if rows := _measured(parts.get(name, {})):
            lines += [f'### Time with {title}', '', *_shares(rows), '']
    lines += _throughput(parts)
    lines += _memory(parts)
    lines += _training(parts)
    lines += _checks(parts)
    lines += _missing(results)
    return '\n'.join(lines).rstrip() + '\n'


def _measured(part: Results) -> list[dict[str, Any]]:
    """Return the speeds of a section, those of separate grids joined, in the order of the file."""
    joined: dict[tuple[str, str, int], dict[str, Any]] = {}
    for found in part.values():
        if 'widths' in found:
            key = (found['network'], found['precision'], found['batch'])
            # The first measurement of the unpruned network stays.
            joined[key] = {**found['widths'], **joined.get(key, {})}
    return [
        {'network': network, 'precision': precision, 'batch': batch, 'widths': widths}
        for (network, precision, batch), widths in joined.items()
    ]


def _grids(rows: Iterable[Results]) -> list[str]:
    """Return the grids, ascending."""
    found = {label for row in rows for label in row['widths']} - {_UNPRUNED}
    return sorted(found, key=int)


def _shares(rows: Sequence[Results]) -> Iterator[str]:
    grids = _grids(rows)
    yield from _header('network', 'precision', 'batch', 'unpruned, ms', *map(_grid, grids))
    for row in rows:
        widths = row['widths']
        shares = [_share(widths[grid]) if grid in widths else '' for grid in grids]
        milliseconds = f'{widths[_UNPRUNED]["pass"]["median"] * 1e3:.2f}'
        yield _row(row['network'], row['precision'], row['batch'], milliseconds, *shares)


def _share(found: Results) -> str:
    if 'ratio' not in found:
        return 'not possible'
    (low, high), median = found['ratio']['quartiles'], found['ratio']['median']
    if low == high == 1:
        return '1'
    text = f'{median:.2f} ({low:.2f} to {high:.2f})'
    if low <= 1 <= high:
        return f'= {text}'
    return f'**{text}**' if median > 1 else text


def _throughput(parts: Results) -> Iterator[str]:
    """Yield images per second at the largest batch."""
    rows = [
        (title, row) for name, title in _RUNTIMES.items() for row in _measured(parts.get(name, {}))
    ]
    if not rows:
        return
    largest = max(row['batch'] for _, row in rows)
    rows = [(title, row) for title, row in rows if row['batch'] == largest]
    grids = _grids(row for _, row in rows)
    yield f'### Images per second, in batches of {largest}'
    yield ''
    yield from _header('network', 'precision', 'runtime', _UNPRUNED, *map(_grid, grids))
    for title, row in rows:
        speeds = [_speed(row['widths'].get(label, {})) for label in (_UNPRUNED, *grids)]
        yield _row(row['network'], row['precision'], title, *speeds)
    yield ''


def _speed(found: Results) -> str:
    return f'{found["images_per_second"]:,.0f}' if 'images_per_second' in found else ''


def _memory(parts: Results) -> Iterator[str]:
    """Yield the peak memory of passes of the largest batch."""
    rows = _measured(parts.get('channels_last', {}))
    rows = [row for row in rows if row['widths'][_UNPRUNED]['activations_mib'] is not None]
    if not rows:
        return
    largest = max(row['batch'] for row in rows)
    grids = _grids(rows)
    yield f'### Peak memory, in batches of {largest}'
    yield ''
    yield 'MiB of weights + MiB of activations at the peak of a pass.'
    yield ''
    yield from _header('network', 'precision', _UNPRUNED, *map(_grid, grids))
    for row in rows:
        if row['batch'] == largest:
            cells = [_mebibytes(row['widths'].get(label, {})) for label in (_UNPRUNED, *grids)]
            yield _row(row['network'], row['precision'], *cells)
    yield ''


def _mebibytes(found: Results) -> str:
    if 'weights_mib' not in found:
        return ''
    return f'{found["weights_mib"]:.0f} + {found["activations_mib"]:.0f}'


def _training(parts: Results) -> Iterator[str]:
    """Yield training steps, what pushes add to them, and what a stage adds to a Runner."""
    steps = {n: found for n, found in parts.get('training', {}).items() if _UNPRUNED in found}
    pushes = {n: found for n, found in parts.get('push', {}).items() if 'ratio' in found}
    stages = [found for found in parts.get('stage', {}).values() if 'ratio' in found]
    if not (steps or pushes or stages):
        return
    yield '### Training'
    yield ''
    if steps:
        yield 'Steps under fp16 AMP, with a GradScaler and fused SGD. The peak is that of weights,'
        yield 'gradients and activations, without the state of the optimizer.'
        yield ''
        yield from _header('network, batch', 'widths', 'step, ms', 'share', 'peak, MiB')
        for name, found in steps.items():
            for label, step in found.items():
                if isinstance(step, Mapping):
                    yield _row(name, _grid(label), *_step(step))
        yield ''
    if pushes:
        yield from _header('push', 'plain step, ms', 'with the push')
        for name, found in pushes.items():
            plain = f'{found["plain"]["median"] * 1e3:.2f}'
            yield _row(name.partition(', ')[2], plain, _share(found))
        yield ''
    for found in stages:
        yield (
            f'A Train stage takes {_share(found)} times the time of a bare MMEngine Runner '
            f'(`{found["config"]}`, epochs: {found["epochs"]}).'
        )
        yield ''


def _step(step: Results) -> tuple[str, str, str]:
    activations = step['activations_and_gradients_mib']
    peak = '' if activations is None else f'{activations + step["weights_mib"]:.0f}'
    return f'{step["step"]["median"] * 1e3:.1f}', _share(step), peak


def _checks(parts: Results) -> Iterator[str]:
    cuts = {name: found for name, found in parts.get('cuts', {}).items() if 'error' in found}
    pushes = {n: _errors(found) for n, found in parts.get('regularizers', {}).items()}
    if cuts:
        yield '### Cuts made and verified on the device'
        yield ''
        yield from _header(
            'network, grid', 'MACs left', 'error', 'trace, s', 'loads again', 'trains on'
        )
        for name, found in cuts.items():
            yes = ['yes' if found[what] else '**no**' for what in ('loads', 'trains_on')]
            seconds = f'{found["trace_seconds"]:.2f}'
            yield _row(name, f'{found["macs_left"]:.1%}', f'{found["error"]:.0e}', seconds, *yes)
        yield ''
    if pushes:
        yield '### Pushes against their formulas'
        yield ''
        yield 'The largest relative error of what a regularizer adds to gradients, or makes of'
        yield 'parameters, in an update. The gradient of a penalty on activations has the rounding'
        yield 'of the precision.'
        yield ''
        yield from _header('precision, optimizer', 'pushes', 'error', 'error, activations')
        for name, (errors, activations) in pushes.items():
            yield _row(name, len(errors), _largest(errors), _largest(activations))
        yield ''


def _errors(found: Results) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the errors of regularizers, and of those that act on activations."""
    own = {name: error for name, error in found.items() if name != 'seconds'}
    activations = {n: error for n, error in own.items() if n.startswith('Activation')}
    return {n: e for n, e in own.items() if n not in activations}, activations


def _largest(errors: Mapping[str, Any]) -> str:
    failed = [name for name, error in errors.items() if isinstance(error, str)]
    if failed:
        return f'**failed: {", ".join(failed)}**'
    return f'{max(errors.values()):.0e}' if errors else ''


def _missing(results: Results) -> Iterator[str]:
    """Yield what was not measured, and why."""
    lines = []
    for name, part in results['sections'].items():
        reasons: dict[str, list[str]] = {}
        for job, found in part.items():
            for kind in ('unavailable', 'failed'):
                if kind in found:
                    reasons.setdefault(f'{kind}: {found[kind]}', []).append(job)
        lines += [f'- {name}, {_jobs(jobs)}: {reason}' for reason, jobs in reasons.items()]
    for name, jobs in results['skipped'].items():
        lines.append(f'- {name}, {_jobs(jobs)}: skipped for the budget of time')
    if lines:
        yield '### Not measured'
        yield ''
        yield from lines


def _jobs(names: Sequence[str]) -> str:
    shown = '; '.join(names[:3])
    return f'{shown}; and {len(names) - 3} more' if len(names) > 3 else shown


def _grid(label: str) -> str:
    return label if label == _UNPRUNED else f'`round_to={label}`'


def _header(*cells: str) -> Iterator[str]:
    yield _row(*cells)
    yield '|' + '---|' * len(cells)


def _row(*cells: Any) -> str:
    return '| ' + ' | '.join(map(str, cells)) + ' |'
