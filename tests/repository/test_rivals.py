"""benchmarks/rivals.py: all methods meet the budget, runs are not repeated, the page has them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.helpers.benchmarks import run, table

pytest.importorskip('torch_pruning')
pytest.importorskip('mlxtend')
TP = ('TP magnitude', 'TP BN scale', 'TP group norm', 'TP growing reg')
OURS = ('L1Norm', 'GlobalSparsity', 'GroupLasso', 'GReg', 'MaskSparsity')


@pytest.fixture
def data(module: Any) -> Any:
    """Return a few random images."""
    draw = torch.Generator().manual_seed(0)
    images = torch.randn(128, 1, 12, 12, generator=draw)
    labels = torch.arange(128) % 10
    return module('grid_network').Data(images, labels, images[:20], labels[:20])


@pytest.fixture
def pruned(module: Any, data: Any) -> Callable[[str], tuple[nn.Module, list[float]]]:
    """Return a function that prunes by a method, and says how often and with what it trained."""
    methods, trained = module('rivals_methods'), module('rivals_train')

    def prune(name: str) -> tuple[nn.Module, list[float]]:
        torch.manual_seed(0)
        network, decays = trained.Network(4).eval(), []
        train = methods.Run.train

        def watched(run: Any, hooks: Any, weight_decay: float | None = None) -> None:
            decays.append(trained.WEIGHT_DECAY if weight_decay is None else weight_decay)
            train(run, hooks, weight_decay)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(methods.Run, 'train', watched)
            methods.METHODS[name].prune(methods.Run(network, data, 0.5, 0, 1, 0.01, 1.0))
        return network, decays

    return prune


@pytest.mark.slow
@pytest.mark.parametrize('name', [*TP, *OURS])
@pytest.mark.filterwarnings('ignore')
def test_a_method_meets_the_budget(name: str, module: Any, data: Any, pruned: Any) -> None:
    network, decays = pruned(name)
    whole, left = (
        sum(macs(each, data.example)) for each in (module('rivals_train').Network(4), network)
    )
    assert 0.2 < left / whole <= 0.5
    assert network(data.example).shape == (1, 10)
    method = module('rivals_methods').METHODS[name]
    assert len(decays) == method.pushes
    # Torch-Pruning's script regularizes without weight decay.
    assert decays == [0.0 if name.startswith('TP') else 5e-4] * method.pushes


def macs(network: nn.Module, images: torch.Tensor) -> list[int]:
    """Return the multiply-adds of each convolution and linear layer, by its outputs."""
    found: list[int] = []

    def count(layer: Any, inputs: Any, output: torch.Tensor) -> None:
        found.append(output.numel() * layer.weight[0].numel())

    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(count)
    network(images)
    return found


def test_the_methods_are_those_of_both_packages(module: Any) -> None:
    methods = module('rivals_methods').METHODS
    assert tuple(methods) == (*TP, *OURS)
    trials = module('rivals').TRIALS
    assert len({len(each) for each in trials.values()}) == 1, 'some methods have more trials'


def test_strengths_of_a_shorter_training_push_as_far_as_those_of_the_script(module: Any) -> None:
    methods = module('rivals_methods')
    scaled = methods._scaled({'reg': 5e-4, 'delta_reg': 1e-4}, 2.0, 10)
    assert scaled == {'reg': pytest.approx(1e-3), 'delta_reg': pytest.approx(2e-3)}
    rates = module('rivals_train').sum_of_rates(10, 6400, 0.1)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 0.1)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 1000)
    total = 0.0
    for _ in range(1000):
        total += optimizer.param_groups[0]['lr']
        optimizer.step()
        scheduler.step()
    assert rates == pytest.approx(total, rel=2e-3)


def test_tuning_never_sees_the_test_images(module: Any, data: Any) -> None:
    split = module('rivals_train').with_validation(data, 40)
    assert len(split.images) == 88 and len(split.test_images) == 40
    joined = torch.cat([split.images, split.test_images])
    assert torch.equal(joined, data.images)
    assert torch.equal(torch.cat([split.labels, split.test_labels]), data.labels)


def test_the_page_compares_methods_of_both_packages_by_seed(module: Any) -> None:
    rows = {
        f'{method} | 0.5 | {seed}': {
            'method': method, 'macs': 0.5, 'cut': 10.0, 'calibrated': 20.0, 'peak': 2**20,
            'finetuned': value + 3 * seed, 'seconds': 9.0, 'prune_seconds': 1.0, 'narrowest': 2,
        }
        for method, values in {
            'TP magnitude': (70.1, 70.0, 70.2, 69.9, 70.0),
            'L1Norm': (72.0, 72.2, 72.0, 72.1, 72.1),
            'MaskSparsity': (71.2, 69.1, 70.0, 69.0, 71.0),
        }.items()
        for seed, value in enumerate(values)
    }  # fmt: skip
    trained = {'method': 'baseline', 'accuracy': 90.0, 'seconds': 1.0}
    text = module('rivals_page').page({
        'setting': {'untuned': True, 'width': 8, 'images': 9, 'epochs': 2, 'lr': 0.1}
        | {'push_epochs': 1, 'finetune_epochs': 1},
        'machine': 'a machine', 'versions': {}, 'baselines': {'0': trained}, 'trials': {},
        'runs': rows,
    })  # fmt: skip
    early, late = text.split('at the end:')
    assert all(cells[-1] == 'within noise' for cells in table(early, '| method | compared'))
    found = {cells[0]: cells[1:] for cells in table(late, '| method | compared')}
    assert found['`L1Norm`'][:3] == ['Torch-Pruning, magnitude', '5', '+2.0']
    assert found['`L1Norm`'][-1] == 'better'
    assert found['`MaskSparsity`'][-1] == 'within noise'


@pytest.mark.slow
def test_the_commands_run_and_go_on_where_they_stopped(tmp_path: Path) -> None:
    results, out = tmp_path / 'rivals.json', tmp_path / 'rivals.md'
    common = ('--shrunk', '--methods', 'TP magnitude', '--work-dir', tmp_path, '--results', results)
    run('rivals.py', 'tune', *common)
    found = run('rivals.py', 'run', *common, '--seeds', '0', '--keeps', '0.5')
    assert found.count('\n') == 2, found
    content = json.loads(results.read_text(encoding='utf-8'))
    best = max(content['trials'].values(), key=lambda trial: trial['finetuned'])
    (row,) = content['runs'].values()
    assert row['lr'] == best['lr'] and row['peak'] > 0 and 0.3 < row['macs'] <= 0.5
    assert run('rivals.py', 'run', *common, '--seeds', '0', '--keeps', '0.5') == ''
    run('rivals.py', 'page', '--results', results, '--out', out)
    (cells,) = table(out.read_text(encoding='utf-8'), '| method |')
    assert cells[0] == 'Torch-Pruning, magnitude' and cells[5] == f'{row["finetuned"]:.1f}'
