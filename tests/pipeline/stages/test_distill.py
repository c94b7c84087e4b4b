"""Distill: the unpruned network teaches the pruned one."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from torch import Tensor, nn

from easypruner.engine.checkpoint import read_plain, read_weights
from easypruner.engine.distillation import DistillationHook, Hints, Soft, attention
from easypruner.errors import ConfigError
from easypruner.pipeline.stages import Distill
from tests.helpers.plugin_files import write_plugin
from tests.helpers.tiny import prune, summary, tiny_config, write_config

LR = 0.5


class Net(BaseModel):
    """A convolution, a ReLU and a linear layer, as MMEngine trains it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(width, 4)

    def forward(self, inputs: Tensor, labels: Any = None, mode: str = 'tensor') -> Any:
        logits = self.fc(torch.relu(self.conv(inputs)).mean((2, 3)))
        if mode == 'tensor':
            return self.drop(logits)
        return {'loss_task': nn.functional.cross_entropy(logits, labels)}


def student_and_teacher() -> tuple[Net, Net]:
    torch.manual_seed(0)
    return Net(5), Net(8)


def batch(seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(6, 3, 5, 5, generator=generator)
    return dict(inputs=images, labels=torch.arange(6) % 4)


def soft_by_hand(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T^2 times the mean over samples of sum p log(p / q), from the softmaxes themselves."""
    total = torch.zeros(())
    for ours, theirs in zip(student, teacher, strict=True):
        q, p = ((x / temperature).exp() / (x / temperature).exp().sum() for x in (ours, theirs))
        for k in range(len(p)):
            total = total + p[k] * (p[k] / q[k]).log()
    return temperature**2 * total / len(student)


def map_by_hand(features: Tensor) -> Tensor:
    """Return the normalized attention map of one sample, ``(channels, height, width)``."""
    squares = torch.zeros(features.shape[1:])
    for channel in features:
        squares = squares + channel**2
    return (squares / squares.norm()).flatten()


def hints_by_hand(student: Tensor, teacher: Tensor) -> Tensor:
    pairs = zip(student, teacher, strict=True)
    each = [((map_by_hand(a) - map_by_hand(b)) ** 2).sum() for a, b in pairs]
    return torch.stack(each).mean()


class TestLosses:
    @pytest.mark.parametrize('temperature', [1.0, 4.0, 0.5])
    def test_soft(self, temperature: float) -> None:
        torch.manual_seed(0)
        student, teacher = torch.randn(5, 7), torch.randn(5, 7)
        loss = Soft(0.3, temperature).loss(student, teacher)
        torch.testing.assert_close(loss, 0.3 * soft_by_hand(student, teacher, temperature))

    def test_equal_logits_cost_nothing_and_shifted_ones_are_equal(self) -> None:
        logits = torch.randn(5, 7)
        assert Soft().loss(logits, logits + 3).item() == pytest.approx(0, abs=1e-5)

    def test_at_high_temperature_it_is_the_distance_of_centred_logits(self) -> None:
        """Equation 4 of the paper: the gradient tends to that of 1 / (2 N) of the squares."""
        torch.manual_seed(0)
        student, teacher = (torch.randn(5, 7, dtype=torch.float64) for _ in range(2))
        centred = (x - x.mean(dim=1, keepdim=True) for x in (student, teacher))
        ours, theirs = centred
        expected = (ours - theirs).square().sum(dim=1).mean() / (2 * 7)
        assert Soft(1.0, 300.0).loss(student, teacher).item() == pytest.approx(
            expected.item(), rel=0.02
        )

    def test_hints_work_with_different_widths(self) -> None:
        torch.manual_seed(0)
        layers = [(torch.randn(4, 3, 5, 6), torch.randn(4, 8, 5, 6)) for _ in range(2)]
        loss = Hints(['a', 'b'], 0.7).loss(*zip(*layers, strict=True))
        expected = sum(hints_by_hand(a, b) for a, b in layers)
        torch.testing.assert_close(loss, 0.7 * expected)

    def test_channels_of_tokens_are_the_last_dimension(self) -> None:
        tokens = torch.randn(2, 9, 5)
        maps = tokens.transpose(1, 2).unflatten(2, (3, 3))
        torch.testing.assert_close(attention(tokens, 2), attention(maps, 1))

    def test_maps_along_one_dimension(self) -> None:
        """Channels are the dimension in which a cut makes two outputs differ, also for tokens."""
        torch.manual_seed(0)
        student, teacher = torch.randn(4, 3, 6), torch.randn(4, 8, 6)
        wide = hints_by_hand(student[:, :, None], teacher[:, :, None])
        torch.testing.assert_close(Hints(['a']).loss([student], [teacher]), wide)
        turned = Hints(['a']).loss([student.transpose(1, 2)], [teacher.transpose(1, 2)])
        torch.testing.assert_close(turned, wide)

    def test_dead_layers_have_a_map(self) -> None:
        assert not attention(torch.zeros(2, 3, 4, 4), 1).any()


class TestHook:
    def taught(self, soft: Soft | None, hints: Hints | None, counts: int = 1) -> Any:
        """Train for one update; return the two networks, and what was logged."""
        student, teacher = student_and_teacher()
        before = copy.deepcopy(student)
        hook = DistillationHook(lambda: teacher, soft, hints)
        hook.before_train(SimpleNamespace(model=student))
        wrapper = OptimWrapper(torch.optim.SGD(student.parameters(), LR), counts)
        wrapper.initialize_count_status(student, 0, counts)
        student.train()
        logs = [student.train_step(batch(n), wrapper) for n in range(counts)]
        hook.after_train(None)
        return before, student, teacher, logs

    @pytest.mark.parametrize('counts', [1, 3])
    def test_an_update_is_by_the_gradient_of_all_losses(self, counts: int) -> None:
        before, student, teacher, logs = self.taught(Soft(0.8, 3.0), Hints(['conv'], 0.6), counts)
        teacher.eval()
        total = torch.zeros(())
        for n, log in enumerate(logs):
            data = batch(n)
            images = data['inputs']
            logits = before.fc(torch.relu(before.conv(images)).mean((2, 3)))
            soft = 0.8 * soft_by_hand(logits, teacher(images), 3.0)
            hints = 0.6 * hints_by_hand(before.conv(images), teacher.conv(images))
            task = nn.functional.cross_entropy(logits, data['labels'])
            assert log['loss_soft'].item() == pytest.approx(soft.item(), rel=1e-4)
            assert log['loss_hints'].item() == pytest.approx(hints.item(), rel=1e-4)
            assert log['loss'].item() == pytest.approx((task + soft + hints).item(), rel=1e-4)
            total = total + (task + soft + hints) / counts
        total.backward()
        for mine, old in zip(student.parameters(), before.parameters(), strict=True):
            torch.testing.assert_close(mine.detach(), (old - LR * old.grad).detach())

    def test_each_part_can_be_left_out(self) -> None:
        *_, logs = self.taught(Soft(), None)
        assert logs[0].keys() == {'loss', 'loss_task', 'loss_soft'}
        *_, logs = self.taught(None, Hints(['conv']))
        assert logs[0].keys() == {'loss', 'loss_task', 'loss_hints'}

    def test_the_teacher_and_the_student_are_not_changed(self) -> None:
        _, student, teacher, _ = self.taught(Soft(), Hints(['conv']))
        original = student_and_teacher()[1].state_dict()
        assert all(torch.equal(t, original[n]) for n, t in teacher.state_dict().items())
        assert all(p.grad is None for p in teacher.parameters())
        assert not any(module.training for module in teacher.modules())
        assert student.state_dict().keys() == Net(5).state_dict().keys()
        assert student(**batch(), mode='loss').keys() == {'loss_task'}

    def test_validation_has_no_teacher(self) -> None:
        student, _ = student_and_teacher()

        def broken() -> nn.Module:
            teacher = Net(8)
            teacher.forward = None
            return teacher

        hook = DistillationHook(broken, Soft(), None)
        hook.before_train(SimpleNamespace(model=student))
        assert student(batch()['inputs'], mode='tensor').shape == (6, 4)


def stages(**arguments: Any) -> list[dict[str, Any]]:
    source = dict(type='L1Norm', budget=dict(type='Macs', keep=0.5))
    each = [dict(type='SelectMask', source=source), dict(type='Prune')]
    hints = dict(layers=['backbone.stages.1', 'backbone'])
    return [
        dict(type='Train', name='baseline', epochs=1, row='baseline'),
        dict(type='Iterative', steps=2, each=each),
        dict(type='Distill', epochs=2, row='taught', hints=hints) | arguments,
        dict(type='Report'),
    ]


STOP = """
from mmengine.hooks import Hook
from easypruner import hookimpl

class Stop(Hook):
    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if (runner.epoch, batch_idx) == (1, 1):
            raise KeyboardInterrupt

@hookimpl
def easypruner_configure_runner(runner, state):
    if state.stage.name.endswith('distill'):
        runner.register_hook(Stop())
"""


@pytest.fixture(scope='module')
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('taught')
    assert prune(write_config(folder, tiny_config(stages=stages())), folder / 'run') == 0
    return folder / 'run'


def test_the_teacher_is_the_network_before_the_first_cut(taught: Path) -> None:
    state = json.loads((taught / '05_distill' / 'state.json').read_text())
    assert state['unpruned'] == '00_baseline/weights.pth'
    rows = {row['name']: row for row in summary(taught)['rows']}
    assert rows['taught']['macs'] == rows['pruned']['macs'] <= 0.5 * rows['baseline']['macs']


def test_both_losses_are_in_the_log(taught: Path) -> None:
    (file,) = (taught / '05_distill').rglob('scalars.json')
    entries = [json.loads(line) for line in file.read_text().splitlines()]
    losses = [entry for entry in entries if 'loss' in entry]
    assert losses
    for entry in losses:
        assert entry['loss_soft'] > 0 and entry['loss_hints'] > 0
        assert entry['loss'] > entry['loss_soft'] + entry['loss_hints']


def test_the_teacher_is_in_no_checkpoint(taught: Path) -> None:
    stage = taught / '05_distill'
    weights = read_weights(stage / 'weights.pth')
    assert weights.keys() == read_weights(taught / '00_baseline' / 'weights.pth').keys()
    assert read_plain(stage / 'epoch_2.pth')['state_dict'].keys() == weights.keys()


def test_a_resumed_stage_ends_bit_for_bit_the_same(taught: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path, tiny_config(stages=stages()))
    plugin = write_plugin(tmp_path / 'plugins', 'stop.py', STOP)
    assert prune(config, tmp_path / 'run', '--plugins', str(plugin.parent)) == 130
    assert prune(config, tmp_path / 'run', '--resume') == 0
    one, other = (read_weights(run / 'pruned.pth') for run in (taught, tmp_path / 'run'))
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())
    assert summary(taught)['rows'] == summary(tmp_path / 'run')['rows']


@pytest.mark.parametrize(
    ('change', 'text'),
    [
        (dict(hints=dict(layers=['backbone.stage.1'])), "did you mean 'backbone.stages.1'"),
        (dict(soft=dict(logits='head.cf')), "did you mean 'head.fc'"),
        (dict(soft=dict(logits='data_preprocessor')), 'is not called'),
        (dict(teacher='nowhere.pth'), 'nowhere.pth'),
        (dict(soft=None, hints=None), 'soft=None and hints=None'),
        (dict(soft=dict(temprature=3)), "did you mean 'temperature'"),
        (dict(soft=4), 'soft=4 of Distill'),
        (dict(soft=dict(temperature='4')), "temperature='4'"),
        (dict(soft=dict(weight=True)), 'weight=True'),
        (dict(soft=dict(logits=5)), 'logits=5'),
        (dict(hints=dict(weight=1)), "needs 'layers'"),
        (dict(hints=dict(layers=[1, 2])), 'layers=[1, 2]'),
        (dict(hints=dict(layers=['neck'])), "'neck' returns (1, 16), which has no positions"),
        (dict(teacher=5), 'teacher=5'),
    ],
)
def test_mistakes_are_found_before_a_run(
    change: dict[str, Any], text: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path, tiny_config(stages=stages(**change)))
    assert prune(config, tmp_path / 'run') == 2
    assert text in capfd.readouterr().err
    assert not (tmp_path / 'run').exists()


def test_without_a_cut_there_is_no_teacher(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path, tiny_config(stages=[stages()[0], *stages()[2:]]))
    assert prune(config, tmp_path / 'run') == 2
    assert (
        'stages[1]: the teacher of Distill is the network before the cut' in capfd.readouterr().err
    )


@pytest.mark.parametrize('part', ['weight', 'temperature'])
@pytest.mark.parametrize('value', [-1.0, math.nan])
def test_numbers_out_of_range(part: str, value: float) -> None:
    with pytest.raises(ConfigError, match=part):
        Distill(soft={part: value})
