"""Weights are loaded whole or not at all, and a mismatch says in one screen what to try."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import easypruner
from easypruner.checkpoints.loading import Loading
from easypruner.errors import ConfigError, EasyPrunerError


def network(classes: int = 3, depth: int = 2) -> nn.Sequential:
    """Return blocks of a convolution and a batch norm with drawn statistics, and a last layer."""
    blocks = OrderedDict[str, nn.Module]()
    for number in range(depth):
        norm = nn.BatchNorm2d(4)
        nn.init.uniform_(norm.running_mean)
        conv = nn.Conv2d(4, 4, 3)
        blocks[f'block{number}'] = nn.Sequential(OrderedDict(conv=conv, bn=norm))
    blocks['fc'] = nn.Linear(4, classes)
    return nn.Sequential(blocks)


def equal(model: nn.Module, weights: dict[str, Tensor]) -> bool:
    own = model.state_dict()
    return all(torch.equal(own[name], tensor) for name, tensor in weights.items())


def load(model: nn.Module, content: Any, folder: Path, **options: Any) -> Loading:
    torch.save(content, folder / 'a.pth')
    return easypruner.load_checkpoint(model, folder / 'a.pth', **options)


WRAPPED = {
    'ddp': ('module.', 'module.'),
    'compiled': ('_orig_mod.', '_orig_mod.'),
    'compiled ddp': ('_orig_mod.module.', '_orig_mod. and module.'),
    'lightning': ('model.', 'model.'),
    'deep': ('a.net.', 'a.net.'),
}


class TestWrappers:
    @pytest.mark.parametrize('wrapper', WRAPPED)
    def test_they_are_removed_if_everything_fits(self, wrapper: str, tmp_path: Path) -> None:
        prefix, note = WRAPPED[wrapper]
        source, target = network().state_dict(), network()
        found = load(target, {f'{prefix}{name}': t for name, t in source.items()}, tmp_path)
        assert equal(target, source)
        assert f'without {note} in the names of the checkpoint' in str(found)

    def test_inside_of_names(self, tmp_path: Path) -> None:
        source, target = network().state_dict(), network()
        names = {name: name.replace('block1.', 'block1._orig_mod.') for name in source}
        load(target, {names[name]: tensor for name, tensor in source.items()}, tmp_path)
        assert equal(target, source)

    @pytest.mark.parametrize('wrap', [torch.compile, nn.DataParallel])
    def test_of_the_model(self, wrap: Any, tmp_path: Path) -> None:
        source, target = network().state_dict(), network()
        load(wrap(target), source, tmp_path)
        assert equal(target, source)

    def test_a_network_inside_of_the_model(self, tmp_path: Path) -> None:
        source, target = network().state_dict(), network()
        found = load(nn.ModuleDict({'net': target}), source, tmp_path)
        assert equal(target, source)
        assert 'with net. in front' in str(found)

    def test_counters_of_averages_are_left_out(self, tmp_path: Path) -> None:
        source, target = network(), network()
        averages = torch.optim.swa_utils.AveragedModel(source)
        load(target, averages.state_dict(), tmp_path)
        assert equal(target, source.state_dict())

    def test_together_with_a_rule(self, tmp_path: Path) -> None:
        source, target = network().state_dict(), network()
        names = {name: f'module.{name.replace("block", "layer")}' for name in source}
        content = {names[name]: tensor for name, tensor in source.items()}
        load(target, content, tmp_path, rename=[('^layer', 'block')])
        assert equal(target, source)


class TestLoading:
    def test_nothing_changes_after_a_mistake(self, tmp_path: Path) -> None:
        target = network()
        before = {name: tensor.clone() for name, tensor in target.state_dict().items()}
        with pytest.raises(EasyPrunerError):
            load(target, network(classes=5).state_dict(), tmp_path)
        assert equal(target, before)

    def test_counters_of_batch_norms_may_be_missing(self, tmp_path: Path) -> None:
        source, target = network().state_dict(), network()
        old = {name: tensor for name, tensor in source.items() if 'tracked' not in name}
        load(target, old, tmp_path)
        assert equal(target, old)

    def test_tied_weights_may_be_stored_once(self, tmp_path: Path) -> None:
        target = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
        target[1].weight = target[0].weight
        weights = {n: torch.rand_like(t) for n, t in target.state_dict().items()}
        del weights['1.weight']
        load(target, weights, tmp_path)
        assert equal(target, weights) and target[1].weight is target[0].weight

    def test_half_precision_fits(self, tmp_path: Path) -> None:
        source, target = network().state_dict(), network()
        load(target, {n: t.half() if t.ndim else t for n, t in source.items()}, tmp_path)
        torch.testing.assert_close(target[0][0].weight, source['block0.conv.weight'].half().float())

    def test_whole_numbers_do_not(self, tmp_path: Path) -> None:
        source = network().state_dict()
        source['fc.weight'] = source['fc.weight'].to(torch.int8)
        with pytest.raises(EasyPrunerError, match=r'fc\.weight: \(3, 4\) of int8'):
            load(network(), source, tmp_path)

    def test_a_model_that_converts_weights(self, tmp_path: Path) -> None:
        class Converting(nn.Linear):
            def _load_from_state_dict(self, state: Any, prefix: str, *args: Any) -> None:
                if f'{prefix}kernel' in state:
                    state[f'{prefix}weight'] = state.pop(f'{prefix}kernel').T
                super()._load_from_state_dict(state, prefix, *args)

        target = nn.Sequential(Converting(2, 3))
        kernel, bias = torch.rand(2, 3), torch.rand(3)
        found = load(target, {'0.kernel': kernel, '0.bias': bias}, tmp_path)
        assert equal(target, {'0.weight': kernel.T, '0.bias': bias})
        assert 'the model itself converts 0.weight, 0.kernel' in str(found)

    @pytest.mark.parametrize('skip', [r'fc\..*', 'fc.*', [r'fc\.weight', r'fc\.bias']])
    def test_skipped_weights_keep_their_values(self, skip: Any, tmp_path: Path) -> None:
        source, target = network(classes=5).state_dict(), network()
        last = target[2].weight.clone()
        found = load(target, source, tmp_path, skip=skip)
        assert torch.equal(target[2].weight, last)
        assert equal(target, {n: t for n, t in source.items() if 'fc' not in n})
        assert found.kept == ('fc.weight', 'fc.bias')

    def test_a_typing_error_in_skip(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"did you mean 'block1\.conv'"):
            load(network(), network().state_dict(), tmp_path, skip=['blok1.conv.*'])

    @pytest.mark.parametrize(
        ('options', 'message'),
        [
            ({'rename': 3}, 'expected the name of a shipped map'),
            ({'skip': [3]}, 'not a regular expression'),
            ({'skip': 3}, 'a list of regular expressions'),
            ({'key': 3}, 'expected a string'),
            ({'prefix': 'nowhere'}, 'no weights with prefix'),
        ],
    )
    def test_mistakes(self, options: dict[str, Any], message: str, tmp_path: Path) -> None:
        with pytest.raises(EasyPrunerError, match=message):
            load(network(), network().state_dict(), tmp_path, **options)

    @pytest.mark.in_ci
    def test_it_does_without_mmengine(self) -> None:
        code = 'import sys, easypruner as e; e.load_checkpoint; sys.exit("mmengine" in sys.modules)'
        assert subprocess.run([sys.executable, '-c', code], check=False).returncode == 0


def message_of(content: Any, folder: Path, target: nn.Module | None = None, **options: Any) -> str:
    with pytest.raises(EasyPrunerError) as caught:
        load(target or network(), content, folder, **options)
    message = str(caught.value)
    assert len(message.splitlines()) <= 24
    return message


class TestMessages:
    def test_of_each_kind(self, tmp_path: Path) -> None:
        content = network().state_dict()
        del content['block0.conv.bias']
        content['block1.bn.weight'] = torch.ones(6)
        content['extra.weight'] = torch.ones(2)
        lines = message_of(content, tmp_path).splitlines()
        assert "14 of the model's 16 weights fit (1 missing, 1 unexpected, 1 of another" in lines[0]
        assert lines[1] == (
            '  other shape  block1.bn.weight: (6,) in the checkpoint, (4,) in the model'
        )
        assert lines[2] == '  missing      block0.conv.bias (4,)'
        assert lines[3] == '  unexpected   extra.weight (2,)'

    def test_only_the_first_five_are_listed(self, tmp_path: Path) -> None:
        content = {f'x{n}': torch.ones(1) for n in range(500)}
        message = message_of(content, tmp_path)
        assert 'and 509 more' in message
        assert message.count('missing   ') + message.count('unexpected   ') == 5

    def test_another_network(self, tmp_path: Path) -> None:
        message = message_of(nn.LSTM(3, 3).state_dict(), tmp_path)
        assert 'This looks like the checkpoint of another network.' in message
        assert 'This looks like' not in message_of(network(5).state_dict(), tmp_path)

    def test_other_classes(self, tmp_path: Path) -> None:
        message = message_of(network(classes=5).state_dict(), tmp_path)
        assert 'The checkpoint has 5 classes and the model has 3, in fc' in message
        assert "skip=['fc\\\\..*'] (everything fits or keeps" in message

    def test_an_idle_rule(self, tmp_path: Path) -> None:
        content = {f'x.{name}': tensor for name, tensor in network(5).state_dict().items()}
        assert 'changes none of the names' in message_of(content, tmp_path, rename='^layer=>block')

    def test_the_proposal_can_be_copied(self, tmp_path: Path) -> None:
        """What is proposed under 'What to try' makes everything fit."""
        source, target = network().state_dict(), network()
        names = {name: name.replace('block', 'stage.') for name in source}
        content = {names[name]: tensor for name, tensor in source.items()}
        message = message_of(content, tmp_path)
        proposal = message.split('What to try:\n')[1].rpartition(' (everything fits)')[0]
        options = eval(f'dict({proposal})')
        load(target, content, tmp_path, **options)
        assert equal(target, source)

    def test_extra_weights_of_a_lightning_module(self, tmp_path: Path) -> None:
        weights = network().state_dict()
        content = {f'model.{n}': t for n, t in weights.items()} | {'loss.w': torch.ones(2)}
        assert "prefix='model.' (everything fits)" in message_of(content, tmp_path)
        target = network()
        load(target, content, tmp_path, prefix='model.')
        assert equal(target, weights)

    def test_a_proposal_is_never_used_unasked(self, tmp_path: Path) -> None:
        source, target = network(depth=4).state_dict(), network(depth=4)
        modules = {name: str(n) for n, name in enumerate({n.rpartition('.')[0]: 0 for n in source})}
        content = {
            f'x{modules[name.rpartition(".")[0]]}.{name.rpartition(".")[2]}': tensor
            for name, tensor in source.items()
        }
        message = message_of(content, tmp_path, target)
        assert "rename='by_structure' (everything fits)" in message
        assert r'^x0\. => block0.conv.' in message and 'and 3 more rules' in message
        found = load(target, content, tmp_path, rename='by_structure')
        assert equal(target, source)
        (tmp_path / 'rules.json').write_text(json.dumps(found.rules))
        again = network(depth=4)
        load(again, content, tmp_path, rename=tmp_path / 'rules.json')
        assert equal(again, source)

    def test_no_map_by_structure(self, tmp_path: Path) -> None:
        message = message_of(network(depth=3).state_dict(), tmp_path, rename='by_structure')
        assert 'several maps' in message

    def test_safetensors_keep_no_order(self, tmp_path: Path) -> None:
        from safetensors.torch import save_file

        content = {f'x.{n}': t.contiguous() for n, t in network(depth=11).state_dict().items()}
        save_file(content, tmp_path / 'a.safetensors')
        with pytest.raises(EasyPrunerError, match='does not keep the order'):
            easypruner.load_checkpoint(
                network(depth=11), tmp_path / 'a.safetensors', rename='by_structure'
            )
