"""The benchmarks run on a small model, and their pages are consistent."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
import torchvision
from torch import nn

import easypruner
from easypruner.testing import example_inputs
from easypruner.testing.networks import Residual
from tests.helpers.benchmarks import run, table
from tests.helpers.clocked import Clocked, use_clock


class TestCoverage:
    @pytest.mark.slow
    def test_a_small_model_is_handled_and_stands_on_the_page(self, tmp_path: Path) -> None:
        out, lines = tmp_path / 'coverage.md', tmp_path / 'results.jsonl'
        arguments = ('--source', 'torchvision', '--only', ' squeezenet1_1$', '--workers', '1')
        run('coverage.py', *arguments, '--out', out, '--resume', lines)
        (found,) = map(json.loads, lines.read_text().splitlines())
        model = torchvision.models.squeezenet1_1()
        assert found['status'] == 'measured'
        assert found['kind'] == 'cnn'
        assert found['params'] == sum(p.numel() for p in model.parameters())
        assert found['neither'] == 0
        assert found['verify_error'] < 1e-5
        assert found['keeps_shapes']
        assert found['costs'] == {
            f'{what} {when}': True for what in ('params', 'MACs') for when in ('before', 'after')
        }
        page = out.read_text()
        totals = {row[0]: row[1:] for row in table(page, '| | models')}
        assert totals['all'][:2] == ['1', '1 (100.0 %)'] and totals['cnn'] == [
            '1', '1 (100.0 %)', '100 %', '1 (100.0 %)', '97 %',
        ]  # fmt: skip
        (row,) = table(page, '| model | kind')
        assert row[0] == 'squeezenet1_1'
        assert row[5] == str(found['groups']) and row[10] == '0'

        before = lines.read_text()
        run('coverage.py', *arguments, '--out', out, '--resume', lines)
        assert lines.read_text() == before, 'a model was measured again'
        assert out.read_text() == page

    @pytest.mark.slow
    def test_a_model_out_of_time_is_reported(self, tmp_path: Path) -> None:
        out, lines = tmp_path / 'coverage.md', tmp_path / 'results.jsonl'
        arguments = ('--source', 'torchvision', '--only', ' squeezenet1_1$', '--limit', '0.01')
        run('coverage.py', *arguments, '--out', out, '--resume', lines)
        (found,) = map(json.loads, lines.read_text().splitlines())
        assert found['status'] == 'timeout'
        page = out.read_text()
        assert table(page, '| | models')[-1][:3] == ['all', '1', '0 (0.0 %)']
        assert 'torchvision `squeezenet1_1`: `not done after 0 s`' in page

    def test_a_model_that_raises_is_reported(self, module: Any) -> None:
        entry = module('models').Entry('torchvision', 'no_such_net', size=1)
        found = module('coverage_check').check(entry)
        assert found.status == 'unusable' and 'no_such_net' in found.error
        assert 'no_such_net' in module('coverage_page').page([found])

    @pytest.mark.parametrize(
        'wrong',
        [
            {'neither': 1},
            {'verify_error': 1e-4},
            {'keeps_shapes': False},
            {'costs': {'MACs after': False}},
            {'status': 'failed', 'error': 'trace: TraceError: no'},
        ],
        ids=lambda wrong: next(iter(wrong)),
    )
    def test_every_failure_counts_and_is_reported(self, module: Any, wrong: dict) -> None:
        right = {
            'source': 'timm', 'name': 'net', 'family': '', 'status': 'measured', 'kind': 'cnn',
            'verify_error': 1e-15, 'verified_on': 'full', 'keeps_shapes': True,
            'costs': {'MACs after': True}, 'counted_on': 'meta',
            'reasons': {'an output of the model (output)': 2},
        }  # fmt: skip
        result, page = module('coverage_result').Result, module('coverage_page').page
        assert result(**right).handled
        assert 'Not handled' not in page([result(**right)])
        bad = result(**{**right, **wrong})
        assert not bad.handled
        text = page([bad])
        assert 'timm `net`: ' in text[text.index('## Not handled') :]

    def test_channels_without_a_known_reason_count_as_frozen(self, module: Any) -> None:
        cause_of = module('coverage_result').cause_of
        reasons = {
            'an output of the model (output)': 'boundary',
            'has a single channel': 'fixed',
            'not used in the forward pass': 'unused',
            'an operation without a rule: foo in bar': 'unsupported',
            'the forward pass does not follow a cut: no': 'unsupported',
            'a reason nobody has thought of': 'unsupported',
        }
        assert {reason: cause_of(reason) for reason in reasons} == reasons

    def test_every_channel_counts_where_a_model_is_verified(self, module: Any) -> None:
        model = Residual()
        nn.init.zeros_(model.branch[2].weight)
        before = model(example_inputs())
        module('coverage_check').enliven(model, example_inputs())
        assert all(p.std() > 0 for p in model.parameters())
        assert not any(m.training for m in model.modules() if isinstance(m, nn.BatchNorm2d))
        assert not torch.equal(model(example_inputs()), before)

    def test_shares_and_slow_traces_stand_on_the_page(self, module: Any) -> None:
        graph = easypruner.trace(Residual(), example_inputs())
        found = module('coverage_check').shares(graph)
        result = module('coverage_result').Result(
            'timm',
            'net',
            'nets',
            'measured',
            seconds=4.0,
            own_seconds=0.5,
            heads_seconds=7.0,
            **found,
        )
        page = module('coverage_page').page([result])
        rows = {row[1]: row[3] for row in table(page, '| library | kind')}
        for share in graph.shares:
            assert rows[share.kind].startswith(f'{share.prunable} of {share.units} ')
        slowest = [row[2:] for row in table(page, '| library | model')]
        assert slowest == [["`attention='heads'`", '7.00', '0.50'], ['', '4.00', '0.50']]

    def test_random_networks_stand_on_the_page(self, module: Any, tmp_path: Path) -> None:
        found = module('random_networks').summary(module('random_networks').draw(2))
        assert [found[key] for key in ('networks', 'traced', 'verified', 'cut')] == [2] * 4
        section = module('coverage_parts').random_section
        assert section(tmp_path / 'random.json') == ''
        (tmp_path / 'random.json').write_text(json.dumps(found))
        text = ' '.join(section(tmp_path / 'random.json').split())
        assert (
            'Of 2 networks, 2 were traced, 2 verified and 2 cut' in text and 'none failed' in text
        )

    def test_masks_remove_half_but_never_all(self, module: Any) -> None:
        graph = easypruner.trace(torchvision.models.resnet18(), torch.zeros(1, 3, 32, 32))
        masks = module('coverage_check').random_masks(graph)
        assert masks.keys() == graph.groups.keys()
        assert all(mask.any() for mask in masks.values())
        kept = torch.cat(list(masks.values())).double().mean()
        assert abs(kept - 0.5) < 0.05


class Mixer(nn.Module):
    """Tokens that are mixed by a linear layer over their sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(16, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.mix(x.flatten(2))


class TestKinds:
    @pytest.mark.parametrize(
        ('build', 'kind'),
        [
            (lambda: nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten(), nn.Linear(64, 2)), 'cnn'),
            (lambda: nn.Sequential(nn.Conv2d(3, 4, 1), nn.Softmax(1)), 'cnn'),
            (Mixer, 'other'),
            (lambda: nn.Sequential(nn.Flatten(2), nn.LSTM(16, 4)), 'other'),
            (lambda: nn.Sequential(nn.Flatten(2), nn.TransformerEncoderLayer(16, 2, 8)), 'other'),
        ],
        ids=['classifier', 'softmax', 'mixer', 'recurrent', 'attention'],
    )
    def test_kind(self, module: Any, build: Any, kind: str) -> None:
        assert module('network_kind').kind_of(build().eval(), torch.rand(2, 3, 4, 4)) == kind

    def test_a_product_with_a_weight_is_not_attention(self, module: Any) -> None:
        class Normed(nn.Linear):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return x.flatten(1) @ nn.functional.normalize(self.weight).t()

        class Gram(nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return x.flatten(1) @ x.flatten(1).t()

        kind_of = module('network_kind').kind_of
        assert kind_of(Normed(48, 2), torch.rand(2, 3, 4, 4)) == 'cnn'
        assert kind_of(Gram(), torch.rand(2, 3, 4, 4)) == 'other'


class TestModels:
    def test_torchvision_is_complete_but_for_quantized_models(self, module: Any) -> None:
        entries = module('models').entries
        sources = ('torchvision', 'torchvision.detection')
        names = {entry.name for source in sources for entry in entries(source)}
        models = torchvision.models
        left_out = set(models.list_models()) - names
        assert left_out == set(models.list_models(module=models.quantization))
        assert names <= set(models.list_models())

    def test_a_text_model_of_each_kind_runs(self, module: Any) -> None:
        pytest.importorskip('transformers', minversion='5.0')
        for name in ('LlamaForCausalLM', 'WhisperForConditionalGeneration'):
            model, inputs = module('models').Entry('transformers.text', name).build()
            assert sum(p.numel() for p in model.parameters()) < 100_000
            assert model.eval()(**inputs).logits.isfinite().all()

    def test_transformers_are_listed_where_installed(self, module: Any) -> None:
        names = {entry.name for entry in module('models').entries('transformers')}
        installed = importlib.util.find_spec('transformers') is not None
        wanted = {'ViTForImageClassification', 'BertForSequenceClassification'}
        assert wanted <= names if installed else not names


@pytest.mark.slow
def test_graph_speed(tmp_path: Path) -> None:
    pytest.importorskip('torch_pruning', reason='the comparison is with Torch-Pruning')
    out = tmp_path / 'graph_speed.md'
    run('graph_speed.py', '--quick', '--only', 'squeezenet1_1', '--out', out)
    page = out.read_text()
    for part in page.split('## In 10 steps'):
        ((name, _, ours, theirs, ratio),) = table(part, '| network |')
        assert name == 'squeezenet1_1'
        assert float(ratio) == pytest.approx(float(theirs) / float(ours), abs=0.06, rel=0.02)
        stated = re.search(r'\*\*([\d.]+) times\*\*', part)
        assert stated is not None and stated[1] == ratio
    rows = {row[0]: float(row[1]) for row in table(page, '| ms |')}
    whole = rows.pop('all')
    floor = rows.pop('floor: a bare meta forward in an empty dispatch mode')
    assert sum(rows.values()) == pytest.approx(whole, abs=0.1)
    assert all(value > 0 for value in rows.values()) and floor > 0
    ((_, size, *_),) = table(page, '| model | its size')
    parameters = torchvision.models.squeezenet1_1().parameters()
    assert float(size) == round(sum(4 * p.numel() for p in parameters) / 1e6)


class TestPush:
    @pytest.mark.slow
    def test_an_optimizer_is_measured_in_both_forms(self, tmp_path: Path) -> None:
        out = tmp_path / 'optimizers.json'
        run('push.py', 'optimizers', '--only', 'AdamW', '--work-dir', tmp_path, '--out', out)
        results = json.loads(out.read_text(encoding='utf-8'))['results']
        assert set(results) == {'AdamW | gradient', 'AdamW | proximal'}
        for result in results.values():
            announced, measured = (
                result[f'{kind}_without_loss'] for kind in ('announced', 'measured')
            )
            assert measured == pytest.approx(announced, abs=0.005)
        proximal = results['AdamW | proximal']
        assert proximal['scales'] == [0, 0] and proximal['bias'] == 0
        before, after, _ = proximal['accuracy']
        assert before == after

    def test_the_page_has_a_line_for_each_result(self, tmp_path: Path, module: Any) -> None:
        pages = module('push_page')
        optimizer = {
            'announced': 5.0, 'announced_without_loss': 0.5, 'measured_without_loss': 0.5,
            'scales': [0.0, 0.25], 'bias': 0.0, 'accuracy': [98.0, 97.0, 97.5],
        }  # fmt: skip
        rows = {'baseline': 90.0, 'sparse': 85.0, 'pruned': 83.0, 'finetuned': 86.0}
        recipes = {f'mnist_SGD_until_0.15_{seed}': rows for seed in range(2)}
        trial = {'alone': 0.1, 'pulls': [0.2, 0.3], 'removed': 9, 'accuracy': [80.0, 70.0]}
        strengths = {
            'mnist_SGD_proximal_0.3_0': trial | {'strength': 0.3, 'left': 2},
            'mnist_SGD_proximal_0.7_0': trial | {'strength': 0.7, 'left': 0},
        }
        pushed = {'strength': {'reach': 7.0}, 'accuracy': [98.0, 97.0, 97.5]}
        regularizers = {
            'GReg | SGD | gradient': pushed | {'figures': {'removed': 0.0519, 'kept': 0.985}},
            'GradDecay | AdamW | rule': pushed | {'strength': None, 'figures': {'at zero': 0.25}},
        }
        contents = {
            'strength': strengths,
            'optimizers': {'SGD | gradient': optimizer},
            'transformer': {'everything': rows, 'convnext_streams': rows},
            'regularizers': regularizers,
            'recipes': recipes | {'mnist_SGD_l1_0.15_0': rows},
        }
        for name, results in contents.items():
            content = {'results': results, 'machine': 'a machine', 'versions': {'torch': '2.0'}}
            (tmp_path / f'push_{name}.json').write_text(json.dumps(content), encoding='utf-8')
        pages.write_page(tmp_path, tmp_path / 'push.md')
        page = (tmp_path / 'push.md').read_text(encoding='utf-8')
        ((name, form, *_, accuracy, _, _),) = table(page, '| optimizer |')
        assert (name, form, accuracy) == ('SGD', 'gradient', '98.00')
        weak, strong = table(page, '| run |')
        assert weak[4:7] == ['0.2, 0.3', '1.0', '2 of 9']
        assert strong[4:7] == ['0.2, 0.3', '3.0', '0 of 9']
        assert 'Of 1 runs with at least this strength, 0 left scales; of the 1 runs' in page
        groups = table(page, '| network |')
        assert [(row[0], row[-1]) for row in groups] == [
            ('transformer', '2.00'),
            ('ConvNeXt', '2.00'),
        ]
        assert [row[:6] for row in table(page, '| regularizer |')] == [
            ['GReg', 'SGD', 'gradient', 'reach 7', 'removed 0.052, kept 0.98', '98.00'],
            ['GradDecay', 'AdamW', 'rule', '', 'at zero 25%', '98.00'],
        ]
        ((*_, cost, finetuned),) = table(page, '| data |')
        assert (cost, finetuned) == ('2.00, 2.00', '86.00 ± 0.00')
        assert [row[0] for row in table(page, '| recipe |')] == ['`until`', '`l1`']


def test_the_overhead_of_a_stage_is_that_of_the_median_pair(module: Any) -> None:
    overhead = module('stage_overhead')
    pairs = [{'stage': ratio * 2.0, 'bare': 2.0} for ratio in (1.02, 0.99, 1.01, 1.03, 1.0)]
    result = overhead.summarized(pairs, epochs=3)
    assert result['ratio'] == {
        'median': pytest.approx(1.01),
        'quartiles': [pytest.approx(1.0), pytest.approx(1.02)],
    }
    text = overhead.sentence(result)
    assert text.startswith('A Train stage takes 1.0 % more CPU time than a bare MMEngine Runner')
    assert 'median of 5 pairs of 3 epochs, quartiles 0.0 to 2.0 %' in text
    assert overhead.read_sentence().startswith('A Train stage takes ')


def test_the_page_of_reliability_has_a_line_for_each_disturbance(module: Any) -> None:
    counts = {'kills': {'cases': 3, 'killed': 2, 'ended before': 1, 'the same result': 3}}
    content = {'counts': counts, 'machine': 'a machine', 'versions': {'torch': '2.0'}}
    ((name, number, ends),) = table(module('reliability').page(content), '| disturbance |')
    assert name.startswith('SIGKILL') and number == '3'
    assert ends == 'killed: 2, ended before: 1, the same result: 3'


class TestLatency:
    NUMBERS: ClassVar = dict(seconds=0.01, ratio=0.5, low=0.48, high=0.52, macs=0.5)

    def content(self, **ratios: float) -> dict[str, Any]:
        """Return results of one network in ONNX Runtime, with some ratios."""
        found = {
            name: {**self.NUMBERS, 'ratio': r, 'low': r, 'high': r} for name, r in ratios.items()
        }
        seconds = {str(w): float(w) for w in range(4, 129)}
        kinds = ('dense', 'depthwise', 'grouped', 'first', 'linear')
        return {
            'processor': 'a processor',
            'versions': {'torch': '2'},
            'side': 224,
            'widths': {'OnnxRuntime': {'seconds': dict.fromkeys(kinds, seconds), 'grid': {}}},
            'networks': {'resnet18': {'OnnxRuntime': found}},
        }

    def test_the_page_says_who_is_faster(self, module: Any, tmp_path: Path) -> None:
        page = module('latency_page')
        ours = dict(full=1.0, any=0.7, grid=0.57, speed=0.52)
        page.write_page(self.content(**ours, rival=0.6, rival16=0.55), tmp_path)
        text = (tmp_path / 'latency.md').read_text()
        assert 'for 0 on the grid (at most 0.570, resnet18) and 1 for speed' in ' '.join(
            text.split()
        )
        assert "Torch-Pruning's are not faster" in ' '.join(text.split())
        assert (tmp_path / page.PICTURE).is_file()
        page.write_page(self.content(**{**ours, 'speed': 0.58}, rival=0.6, rival16=0.55), tmp_path)
        text = ' '.join((tmp_path / 'latency.md').read_text().split())
        assert '0 for speed (at most 0.580, resnet18)' in text
        assert 'faster than that for speed for resnet18 in OnnxRuntime' in text

    @pytest.mark.slow
    def test_a_small_network_is_measured(self, tmp_path: Path) -> None:
        pytest.importorskip('torch_pruning', reason='the comparison is with Torch-Pruning')
        results = tmp_path / 'latency.json'
        run('latency.py', '--only', 'resnet18', '--runtimes', 'TorchEager', '--side', '32',
            '--repeats', '2', '--results', results, '--docs', tmp_path)  # fmt: skip
        found = json.loads(results.read_text())['networks']['resnet18']['TorchEager']
        assert set(found) == {'full', 'any', 'grid', 'speed', 'rival', 'rival16'}
        assert found['full']['macs'] == 1
        assert all(0.4 < found[name]['macs'] <= 0.5 for name in ('any', 'grid', 'speed'))
        assert '| resnet18 |' in (tmp_path / 'latency.md').read_text()


@pytest.mark.in_ci
class TestLatencyBudget:
    def test_the_section_counts_what_is_near(self, module: Any) -> None:
        cut = {'network': 'resnet18', 'runtime': 'OpenVINO', 'asked': 0.5, 'noise': 0.004,
               'seconds': 0.01, 'macs': 0.46, 'search': 9.6, 'measured': [[0.4, 0.5]]}  # fmt: skip
        cuts = {'a': {**cut, 'delivered': 0.495}, 'b': {**cut, 'delivered': 0.48}}
        content = {'processor': 'a processor', 'side': 224, 'versions': {}, 'cuts': cuts}
        text = module('latency_budget_page').section(content)
        rows = table(text, '| network | runtime')
        assert rows[0][2:] == ['0.5', '0.495 ± 0.004', '-1.0 %', '46 %', '1', '10 s']
        assert '1 of 2 are within 3%' in text

    def test_a_small_network_is_measured_and_not_again(
        self, module: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        use_clock(monkeypatch, tmp_path / 'cache')
        benchmark, results = module('latency_budget'), tmp_path / 'results.json'
        monkeypatch.setattr(benchmark, 'runtime_of', lambda name: Clocked())
        options = ['--networks', 'alexnet', '--runtimes', 'Clocked', '--side', '64']
        monkeypatch.setattr('sys.argv', ['', *options, '--results', str(results)])
        benchmark.main()
        content = results.read_text()
        cuts = json.loads(content)['cuts']
        assert list(cuts) == ['alexnet Clocked 0.7', 'alexnet Clocked 0.5']
        assert all(0.97 * c['asked'] <= c['delivered'] <= c['asked'] for c in cuts.values())
        benchmark.main()
        assert results.read_text() == content


class TestOperations:
    def test_the_page_counts_models_and_operations(self, module: Any) -> None:
        operations = module('operations')
        met = {('timm', 'a'): [], ('timm', 'b'): ['linalg_qr'], ('torchvision', 'c'): None}
        page = operations.page(met)
        assert 'Of 2 models of timm' in page and '(1 more do not run' in page
        assert '- `linalg_qr`: 1, as b' in page and '`linalg_qr`,' in page
        assert '`abs`' not in page and 'none meet' in ' '.join(
            operations.page({('timm', 'a'): []}).split()
        )

    def test_a_model_meets_what_is_on_its_tape(self, module: Any) -> None:
        entry = module('models').Entry('torchvision', 'mobilenet_v2')
        assert module('operations').met_by(entry) == []
