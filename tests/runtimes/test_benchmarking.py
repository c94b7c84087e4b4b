"""Benchmarks: what is measured, and which differences noise explains."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import easypruner
from easypruner.errors import ConfigError, EasyPrunerError
from easypruner.runtimes import Exported, Runtime, Session, benchmarking, candidates
from easypruner.runtimes.benchmark_table import NO_DIFFERENCE
from easypruner.runtimes.memory import peak_memory
from easypruner.runtimes.timing import Reading, Timed

SMALL, LARGE = nn.Linear(8, 8), nn.Linear(8, 64)
INPUTS = torch.rand(1, 8)


def timed(seconds: float, ratio: float, spread: float) -> Timed:
    return Timed(Reading(seconds, spread * seconds, 25), Reading(ratio, spread, 25))


@pytest.fixture
def times(monkeypatch: pytest.MonkeyPatch) -> list[Timed]:
    """Return a list of the times that the next benchmark gets: the twin's is the last."""
    given: list[Timed] = []

    def measure(passes: Sequence[Callable[[], Any]], **settings: Any) -> list[Timed]:
        assert len(passes) == len(given)
        return given

    monkeypatch.setattr(benchmarking, 'measure', measure)
    # Another process takes seconds to measure it.
    monkeypatch.setattr(candidates, 'peak_memory', lambda load: 1_000_000)
    return given


class TestDifferences:
    def test_a_difference_beyond_noise(self, times: list[Timed]) -> None:
        times += [timed(0.004, 1, 0.01), timed(0.002, 0.5, 0.01), timed(0.004, 1.001, 0.01)]
        found = easypruner.benchmark({'all': LARGE, 'half': SMALL}, INPUTS, batches=[2])
        row = found.row('half', 'TorchEager', 2)
        assert row.differs and row.ratio == 0.5
        assert row.low is not None and row.high is not None and row.low < 0.5 < row.high < 0.52
        assert row.throughput == pytest.approx(1000)
        assert row.bytes == 4 * (8 * 8 + 8) < found.row('all', 'TorchEager', 2).bytes
        assert '0.500' in str(found) and NO_DIFFERENCE not in str(found)

    @pytest.mark.parametrize(
        ('spread', 'twin'),
        [(0.2, 1.0), (0.001, 1.06), (0.001, 0.94)],
        ids=['passes vary', 'a copy of the first is slower', 'a copy of the first is faster'],
    )
    def test_noise_explains_it(self, times: list[Timed], spread: float, twin: float) -> None:
        times += [timed(0.004, 1, spread), timed(0.0038, 0.95, spread), timed(0.004, twin, spread)]
        found = easypruner.benchmark({'all': LARGE, 'half': SMALL}, INPUTS)
        assert not found.row('half', 'TorchEager').differs
        assert NO_DIFFERENCE in str(found) and '0.950' not in str(found)
        entry = found.to_json()['rows'][1]
        assert entry['differs'] is False and entry['ratio'] is None

    def test_the_clock_is_the_one_asked_for(
        self, times: list[Timed], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        times.append(timed(0.004, 1, 0.01))
        clocks: list[str] = []
        given = benchmarking.measure

        def measure(passes: Any, **settings: Any) -> Any:
            clocks.append(settings['clock'])
            return given(passes, **settings)

        monkeypatch.setattr(benchmarking, 'measure', measure)
        found = easypruner.benchmark(SMALL, INPUTS, clock='cpu')
        assert 'TorchEager, 1 thread, CPU time' in str(found)
        assert found.to_json()['clock'] == 'cpu'
        assert 'CPU time' not in str(easypruner.benchmark(SMALL, INPUTS))
        assert clocks == ['cpu', 'wall']
        with pytest.raises(ConfigError, match="clock='cpus' of benchmark"):
            easypruner.benchmark(SMALL, INPUTS, clock='cpus')  # type: ignore[arg-type]

    def test_a_runtime_elsewhere_has_no_cpu_time(self) -> None:
        class Elsewhere(Runtime):
            clock = 'wall'

            def export(self, *args: Any) -> Exported:
                raise AssertionError

            def load(self, path: Path) -> Session:
                raise AssertionError

        with pytest.raises(EasyPrunerError, match='Elsewhere does not run on the processor'):
            easypruner.benchmark(SMALL, INPUTS, Elsewhere(), clock='cpu')

    def test_a_single_network_is_compared_with_nothing(self, times: list[Timed]) -> None:
        times.append(timed(0.004, 1, 0.01))
        found = easypruner.benchmark(SMALL, INPUTS)
        assert found.rows[0].ratio is None and 'interval' not in str(found)


class Stacked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3)

    def forward(self, images: list[Tensor]) -> Tensor:
        return self.first(torch.stack(images))


class Edges(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 4)

    def forward(self, nodes: Tensor, edges: Tensor) -> Tensor:
        found = self.first(nodes)
        return found.index_add(0, edges[1], found[edges[0]])


class OneBatch(Runtime):
    """Runs in torch what it 'exports', a single sample at a time, and refuses wide layers."""

    made: list[tuple[str, Any]]

    def __init__(self, threads: int = 1) -> None:
        super().__init__(threads)
        self.made = []
        self._networks: dict[Path, nn.Module] = {}

    def export(self, network: Any, inputs: Any, folder: Path, name: str) -> Exported:
        if network.out_features > 32:
            raise EasyPrunerError('too wide')
        path = folder / f'{name}.bin'
        path.write_bytes(b'12345')
        self._networks[path] = network
        self.made.append((path.parent.name, tuple(inputs.shape)))
        return Exported(path, (path,))

    def load(self, path: Path) -> Session:
        return Session(lambda inputs: lambda: (self._networks[path](inputs),))


class TestBenchmark:
    @pytest.mark.in_ci
    def test_a_file_for_each_batch_if_the_batch_is_fixed(self) -> None:
        runtime = OneBatch()
        found = easypruner.benchmark(
            SMALL, INPUTS, runtime, batches=[1, 4], repeats=2, seconds=None
        )
        assert runtime.made == [('1', (1, 8)), ('4', (4, 8))]
        assert [(row.batch, row.bytes) for row in found.rows] == [(1, 5), (4, 5)]

    def test_what_cannot_be_measured_is_named(self) -> None:
        networks = {'wide': LARGE, 'narrow': SMALL}
        settings: dict[str, Any] = dict(repeats=2, seconds=None, memory=False)
        found = easypruner.benchmark(networks, INPUTS, [OneBatch(), 'TorchEager'], **settings)
        assert [(row.name, row.runtime) for row in found.rows] == [
            ('narrow', 'OneBatch'),
            ('wide', 'TorchEager'),
            ('narrow', 'TorchEager'),
        ]
        assert found.problems == ('wide, OneBatch, batch 1: too wide',)
        assert found.rows[0].ratio is None
        with pytest.raises(EasyPrunerError, match='nothing could be measured: 0 Linear, OneBatch'):
            easypruner.benchmark(LARGE, INPUTS, OneBatch(), **settings)

    @pytest.mark.in_ci
    @pytest.mark.parametrize(
        ('network', 'inputs'),
        [
            (Stacked(), ([torch.rand(3, 6, 6)],)),
            (Edges(), (torch.rand(5, 8), torch.tensor([[0, 4, 2], [1, 3, 2]]))),
        ],
    )
    def test_inputs_without_a_batch_are_one_sample(self, network: nn.Module, inputs: Any) -> None:
        given = dict(repeats=1, seconds=None, memory=False)
        found = easypruner.benchmark(network, inputs, **given)
        assert [row.batch for row in found.rows] == [1]
        with pytest.raises(EasyPrunerError, match='nothing could be measured'):
            easypruner.benchmark(network, inputs, batches=[2], **given)

    def test_inputs_without_samples_are_refused(self) -> None:
        with pytest.raises(EasyPrunerError, match='the example inputs have no sample'):
            easypruner.benchmark(SMALL, INPUTS[:0], batches=[1, 2])

    def test_files_of_another_batch(self) -> None:
        exported = {'OneBatch': Exported(Path('network'), ())}
        given = candidates.Candidate('e', None, (INPUTS,), exported)
        with pytest.raises(EasyPrunerError, match=r'exported for a batch of 1 only.* inputs of 4'):
            benchmarking.benchmark_networks([given], [OneBatch()], [4])

    def test_the_networks_stay_as_they_are(self) -> None:
        class Counting(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.register_buffer('passes', torch.zeros(1))

            def forward(self, x: Tensor) -> Tensor:
                self.passes += 1
                self.seen = x.shape
                return x + torch.rand(1)

        network, state = Counting(), torch.get_rng_state()
        easypruner.benchmark(network, INPUTS, repeats=2, seconds=None, memory=False)
        assert network.passes.item() == 0 and not hasattr(network, 'seen')
        assert torch.equal(torch.get_rng_state(), state)

    def test_it_is_json(self) -> None:
        found = easypruner.benchmark([SMALL, LARGE], INPUTS, repeats=2, seconds=None, threads=2)
        content = json.loads(json.dumps(found.to_json()))
        assert content['machine']['torch'] == torch.__version__.partition('+')[0]
        assert [row['network'] for row in content['rows']] == ['0 Linear', '1 Linear']
        assert {row['threads'] for row in content['rows']} == {2}
        assert all(row['passes'] == 2 for row in content['rows'])

    @pytest.mark.parametrize(
        ('changes', 'message'),
        [
            (dict(models=[]), 'models of benchmark is empty'),
            (dict(models={}), 'models of benchmark is empty'),
            (dict(models=['resnet18']), 'model of benchmark is a str'),
            (dict(batches=8), 'expected a list of whole numbers'),
            (dict(batches=[0]), 'batches=0'),
            (dict(repeats=0), 'repeats=0'),
            (dict(seconds=-1), 'seconds=-1'),
            (dict(threads=0), 'threads=0'),
            (dict(runtime='TorchEagr'), "did you mean 'TorchEager'"),
        ],
    )
    def test_mistakes(self, changes: dict[str, Any], message: str) -> None:
        given = {'models': SMALL, 'example_inputs': INPUTS, **changes}
        with pytest.raises(ConfigError, match=message):
            easypruner.benchmark(**given)


@pytest.mark.in_ci
@pytest.mark.skipif(peak_memory(lambda: 0) is None, reason='the system does not tell the memory')
def test_the_peak_of_memory_counts() -> None:
    size = 64 * 2**20

    found = peak_memory(lambda: len(bytearray(b'1') * size))
    assert found is not None and 0.9 * size <= found < 1.5 * size
    assert (peak_memory(lambda: 0) or 0) < size / 4
