"""benchmarks/gpu.py runs on a CPU, keeps to its budget, and finds wrong pushes."""

from __future__ import annotations

import dataclasses
import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

import easypruner
from tests.helpers.benchmarks import run, table


@pytest.mark.slow
def test_all_sections_run_on_a_cpu(module: Any, tmp_path: Path) -> None:
    out = tmp_path / 'gpu.json'
    run('gpu.py', '--device', 'cpu', '--shrunk', '--out', out)
    results = json.loads(out.read_text(encoding='utf-8'))
    parts = results['sections']
    assert list(parts) == list(module('gpu').SECTIONS) and results['skipped'] == {}
    for name, part in parts.items():
        assert part, name
        for job, found in part.items():
            assert 'failed' not in found, (name, job, found)
    for found in parts['cuts'].values():
        assert 0 < found['error'] < 1e-5 and 0.4 < found['macs_left'] <= 0.5
        assert found['loads'] and found['trains_on']
    for found in parts['regularizers'].values():
        for name, error in found.items():
            assert name == 'seconds' or error < (1e-2 if 'Activation' in name else 1e-4), name
    for runtime in ('channels_last', 'compiled'):
        for found in parts[runtime].values():
            assert all(width['pass']['median'] > 0 for width in found['widths'].values())
    page = module('gpu_page').section(results)
    assert 'its figures mean nothing' in page
    assert len(table(page, '| precision, optimizer |')) == 8


def test_a_job_that_would_pass_the_budget_is_skipped_and_named(module: Any, tmp_path: Path) -> None:
    gpu, job = module('gpu'), module('gpu_bench').Job
    file, now = tmp_path / 'gpu.json', [0.0]

    def taking(seconds: float) -> Any:
        def measure() -> dict[str, float]:
            now[0] += seconds
            return {'value': seconds}

        return measure

    def content() -> Any:
        return json.loads(file.read_text(encoding='utf-8'))

    def breaks() -> Any:
        assert set(content()['sections']['first']) == {'short'}, 'not saved at once'
        raise RuntimeError('no kernel')

    about = {'card': 'a card', 'shrunk': False, 'versions': {}}
    study = gpu.Study(about, file, gpu.Clock(100.0, lambda: now[0]))
    study.run('first', [job('short', taking(10), 5), job('broken', breaks, 5)])
    # The second is expected to take as long as the first did.
    study.run('second', [job('long', taking(50), 1), job('too long', taking(1), 1)])
    study.run('third', [job('as announced', taking(1), 41), job('fits', taking(1), 40)])
    parts = content()['sections']
    assert parts['first']['broken']['failed'] == 'RuntimeError: no kernel'
    assert parts['second'] == {'long': {'value': 50, 'seconds': 50}}
    assert set(parts['third']) == {'fits'}
    assert content()['skipped'] == {'second': ['too long'], 'third': ['as announced']}

    again = gpu.Study(about, file, gpu.Clock(100.0), keep=True)
    again.run('second', [job('too long', taking(1), 1)])
    assert set(content()['sections']) == {'first', 'second', 'third'}
    assert content()['skipped'] == {'third': ['as announced']}
    gpu.Study({**about, 'card': 'other'}, file, gpu.Clock(9.0), keep=True).run('fourth', [])
    assert set(content()['sections']) == {'fourth'}


def test_each_regularizer_has_a_formula(module: Any) -> None:
    cases = module('gpu_formulas').CASES.values()
    checked = {case.config['type'] for case in cases}
    checked.add(module('gpu_regularizers').ON_ACTIVATIONS)
    kinds = {name: getattr(easypruner.regularizers, name) for name in dir(easypruner.regularizers)}
    built_in = {n for n, k in kinds.items() if k.__module__.startswith('easypruner_plugins.')}
    assert checked == built_in


@pytest.mark.parametrize('optimizer', ['SGD, fused', 'AdamW, foreach'])
def test_a_wrong_push_is_found(module: Any, optimizer: str) -> None:
    bench, pushes = module('gpu_bench'), module('gpu_regularizers')
    subject = pushes.Subject(bench.Bench(torch.device('cpu'), bench.SHRUNK))
    for name in ('Polarization', 'MaskSparsity, proximal'):
        case = module('gpu_formulas').CASES[name]
        wrong = dataclasses.replace(case, config={**case.config, 'strength': 0.11})
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', easypruner.PushWarning)
            errors = [
                pushes.Update(subject, 'fp16 with a GradScaler', optimizer).error_of(each)
                for each in (case, wrong)
            ]
        assert errors[0] < 1e-4 and errors[1] == pytest.approx(0.1, rel=0.3)


def test_the_section_has_a_cell_for_each_grid(module: Any) -> None:
    def width(ratio: float, spread: float = 0.01) -> dict[str, Any]:
        quartiles = [ratio - spread, ratio + spread]
        return {
            'pass': {'median': 0.01 * ratio}, 'images_per_second': 25600 / ratio,
            'ratio': {'median': ratio, 'quartiles': quartiles},
            'activations_mib': 100 * ratio, 'weights_mib': 50 * ratio,
        }  # fmt: skip

    def speed(widths: dict[str, Any]) -> dict[str, Any]:
        both = {'unpruned': width(1.0, 0.0), **widths}
        return {'network': 'net', 'precision': 'fp16', 'batch': 256, 'widths': both}

    eager = speed({'16': width(1.2), '8': width(0.995), '1': width(0.7)})
    compiled = {'a': speed({'8': width(0.6)}), 'b': speed({'64': {'unavailable': 'narrow'}})}
    results = {
        'card': 'NVIDIA H200', 'memory_gib': 139.8, 'date': '2026-11-28', 'shrunk': False,
        'versions': {'torch': '2.0', 'cuda': '13.0', 'cudnn': 9},
        'sections': {
            'channels_last': {'a': eager},
            'compiled': compiled,
            'tensorrt': {'a': {'unavailable': 'not installed'}, 'b': {'failed': 'Oops: no'}},
        },
        'skipped': {'compiled': ['c', 'd', 'e', 'f']},
    }  # fmt: skip
    page = module('gpu_page').section(results)
    assert page.startswith('## On a GPU\n') and 'NVIDIA H200 (140 GiB), with torch 2.0' in page
    time, other = page.split('### Time with torch.compile')
    ((*_, milliseconds, free, eight, sixteen),) = table(time, '| network |')
    assert (milliseconds, free) == ('10.00', '0.70 (0.69 to 0.71)')
    assert eight == '= 0.99 (0.98 to 1.00)' and sixteen == '**1.20 (1.19 to 1.21)**'
    ((*_, eight, large),) = table(other, '| network |')
    assert (eight, large) == ('0.60 (0.59 to 0.61)', 'not possible')
    speeds = table(page, '| network | precision | runtime |')
    assert [row[3:] for row in speeds] == [
        ['25,600', '36,571', '25,729', '21,333', ''],
        ['25,600', '', '42,667', '', ''],
    ]
    assert table(page, '| network | precision | unpruned |')[0][2:4] == ['50 + 100', '35 + 70']
    assert '- tensorrt, a: unavailable: not installed\n- tensorrt, b: failed: Oops: no' in page
    assert '- compiled, c; d; e; and 1 more: skipped for the budget of time' in page
