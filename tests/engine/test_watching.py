"""A penalty on forward passes, compared with the gradient of a loss computed by hand."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from easypruner_plugins.activation_sparsity import ActivationSparsity
from mmengine.config import Config
from mmengine.hooks import Hook
from torch import Tensor, nn

from easypruner import Masks, Progress, Regularizer
from easypruner.engine.pruning_hook import PruningHook
from easypruner.engine.runner import RunnerPlan, Tracer, build_runner
from easypruner.engine.schedule import measure_schedule
from easypruner.errors import ConfigError
from easypruner.strategies import Schedule
from tests.helpers.plugin_files import write_plugin
from tests.helpers.tiny import tiny_config, torchrun, write_config
from tests.helpers.training import EPOCHS, ITERATIONS, WAYS

STRENGTH = 0.75


class Recorder(Hook):
    """Records the weights and batches until the first update, and its gradients."""

    priority = 'LOWEST'

    def __init__(self) -> None:
        self.batches: list[Any] = []
        self.weights: dict[str, Tensor] = {}
        self.gradients: dict[str, Tensor] = {}

    def before_train(self, runner: Any) -> None:
        self.weights = {n: t.detach().clone() for n, t in runner.model.state_dict().items()}

        def copy(*_: Any) -> None:
            if not self.gradients:
                named = runner.model.named_parameters()
                self.gradients = {name: p.grad.clone() for name, p in named}

        runner.optim_wrapper.optimizer.register_step_pre_hook(copy)

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        if not self.gradients:
            self.batches.append(data_batch)


def losses_by_hand(
    model: Any, batches: Sequence[Any], strength: float, kept: Mapping[str, Tensor], wrapper: Any
) -> Iterator[Tensor]:
    """Yield the loss of each batch, plus the mean |activation| of the inputs of convolutions.

    The network is plain: what a convolution or the classifier reads comes right out of a ReLU, or
    of the pooling behind one. ``kept`` maps a module's path to the channels that are not pushed.
    """
    seen: list[Tensor] = []

    def note(path: str) -> Any:
        def hook(module: nn.Module, args: Any) -> None:
            x = args[0].float()
            means = x.abs().mean(dim=[d for d in range(x.dim()) if d != 1])
            seen.append((means * (~kept[path] if path in kept else 1)).sum())

        return hook

    layers = [
        (path, layer)
        for path, layer in model.named_modules()
        if isinstance(layer, nn.Conv2d | nn.Linear) and layer.weight.shape[1] > 1
    ]
    handles = [layer.register_forward_pre_hook(note(path)) for path, layer in layers]
    for batch in batches:
        seen.clear()
        with wrapper.optim_context(model):
            losses = model(**model.data_preprocessor(batch, True), mode='loss')
        yield model.parse_losses(losses)[0] + strength * sum(seen)
    for handle in handles:
        handle.remove()


def gradients_by_hand(
    runner: Any, recorder: Recorder, strength: float, kept: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    model = runner.model
    model.load_state_dict(recorder.weights)
    model.train()
    model.zero_grad()
    wrapper = runner.optim_wrapper
    losses = losses_by_hand(model, recorder.batches, strength, kept or {}, wrapper)
    torch.autograd.backward([loss / len(recorder.batches) for loss in losses])
    if wrapper.clip_grad_kwargs:
        nn.utils.clip_grad_norm_(model.parameters(), **wrapper.clip_grad_kwargs)
    return {name: p.grad.clone() for name, p in model.named_parameters()}


def run(
    folder: Path, regularizer: Regularizer, masks: Masks | None = None, every: int = 1, **way: Any
) -> tuple[Any, Recorder]:
    content = tiny_config(stages=None)
    content['optim_wrapper'] |= way
    schedule = measure_schedule(content, ITERATIONS // EPOCHS, EPOCHS)
    config = Config(content)
    recorder = Recorder()
    hook = PruningHook(regularizer, masks, schedule, Tracer(config, ()), every=every)
    plan = RunnerPlan(folder, seed=0, epochs=EPOCHS, hooks=[hook, recorder])
    runner = build_runner(config, plan)
    runner.train()
    return runner, recorder


def hooks_of(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def assert_same(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], rtol: float) -> None:
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(
            gradient, expected[name], rtol=rtol, atol=rtol * float(expected[name].abs().max())
        )


@pytest.mark.parametrize('way', WAYS)
def test_it_joins_the_loss_of_every_forward_pass(way: str, tmp_path: Path) -> None:
    runner, recorder = run(tmp_path, ActivationSparsity(STRENGTH), **WAYS[way])
    assert len(recorder.batches) == WAYS[way].get('accumulative_counts', 1)
    rtol = 2e-2 if 'type' in WAYS[way] else 1e-4
    assert_same(recorder.gradients, gradients_by_hand(runner, recorder, STRENGTH), rtol)
    without = gradients_by_hand(runner, recorder, 0.0)
    with pytest.raises(AssertionError):
        assert_same(recorder.gradients, without, rtol)


def test_a_lazy_push_stands_for_the_updates_until_the_next(tmp_path: Path) -> None:
    runner, recorder = run(tmp_path, ActivationSparsity(STRENGTH), every=4)
    assert_same(recorder.gradients, gradients_by_hand(runner, recorder, 4 * STRENGTH), 1e-4)


def test_only_removed_channels_are_pushed(tmp_path: Path) -> None:
    content = tiny_config(stages=None)
    model = build_runner(Config(content), RunnerPlan(tmp_path / 'other', seed=0)).plain_model
    graph = Tracer(Config(content), ())(model)
    masks = Masks({n: torch.arange(g.size) % 2 == 0 for n, g in graph.groups.items()})
    channels = graph.keep(masks)
    kept = {
        path: channels.get((f'{path}.weight', 1), torch.ones(layer.weight.shape[1]).bool())
        for path, layer in model.named_modules()
        if isinstance(layer, nn.Conv2d | nn.Linear)
    }
    regularizer = ActivationSparsity(STRENGTH, only_removed=True)
    runner, recorder = run(tmp_path / 'run', regularizer, masks)
    assert_same(recorder.gradients, gradients_by_hand(runner, recorder, STRENGTH, kept), 1e-4)


def test_nothing_is_left_on_the_network_and_the_optimizer(tmp_path: Path) -> None:
    runner, _ = run(tmp_path / 'run', ActivationSparsity(STRENGTH))
    assert hooks_of(runner.model) == 0
    assert 'update_params' not in vars(runner.optim_wrapper)
    # The optimizer had two hooks, and only that of the recorder is left.
    assert len(runner.optim_wrapper.optimizer._optimizer_step_pre_hooks) == 1


class Failing(ActivationSparsity):
    """Fails at its second forward pass."""

    def forward_penalty(self, progress: Progress) -> Tensor | None:
        if progress.update:
            raise RuntimeError('second pass')
        return super().forward_penalty(progress)


def test_nothing_is_left_when_training_fails(tmp_path: Path) -> None:
    content = tiny_config(stages=None)
    schedule = measure_schedule(content, ITERATIONS // EPOCHS, EPOCHS)
    hook = PruningHook(Failing(STRENGTH), None, schedule, Tracer(Config(content), ()))
    runner = build_runner(Config(content), RunnerPlan(tmp_path, seed=0, epochs=1, hooks=[hook]))
    with contextlib.closing(hook), pytest.raises(RuntimeError, match='second pass'):
        runner.train()
    assert hooks_of(runner.model) == 0
    assert 'update_params' not in vars(runner.optim_wrapper)


def test_it_has_no_reach() -> None:
    regularizer = ActivationSparsity(dict(reach=5.0))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match='ActivationSparsity acts on activations, so it does not'):
        regularizer.schedule(Schedule(0.5, 0.9, 10))


DUMP = f"""
from pathlib import Path
from typing import Any
import torch
from mmengine.hooks import Hook
from torch import Tensor
from easypruner import hookimpl

{inspect.getsource(Recorder)}

class Dump(Recorder):
    def after_train(self, runner):
        file = Path(runner.work_dir) / f'rank{{runner.rank}}.pth'
        images = [batch['inputs'] for batch in self.batches]
        labels = [[s.gt_label for s in batch['data_samples']] for batch in self.batches]
        torch.save([self.weights, self.gradients, images, labels], file)

@hookimpl
def easypruner_configure_runner(runner, state):
    runner.register_hook(Dump())
"""


@pytest.mark.slow
def test_two_processes_get_the_mean_of_their_penalties(tmp_path: Path) -> None:
    from mmpretrain.structures import DataSample

    push = dict(type='ActivationSparsity', strength=STRENGTH)
    stages = [dict(type='Train', name='pushed', epochs=1, regularizer=push)]
    content = tiny_config(stages=[*stages, dict(type='Evaluate'), dict(type='Report')])
    plugins = write_plugin(tmp_path / 'plugins', 'dump.py', DUMP).parent
    config = write_config(tmp_path, content)
    done = torchrun(config, tmp_path / 'run', '--plugins', str(plugins))
    assert done.returncode == 0, done.stderr
    ranks = [
        torch.load(tmp_path / 'run' / '00_pushed' / f'rank{rank}.pth', weights_only=True)
        for rank in (0, 1)
    ]
    runner = build_runner(
        Config(tiny_config(stages=None)), RunnerPlan(tmp_path / 'hand', seed=0, epochs=1)
    )
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    expected = []
    for weights, _, images, labels in ranks:
        recorder = Recorder()
        recorder.weights = {name.removeprefix('module.'): t for name, t in weights.items()}
        for inputs, targets in zip(images, labels, strict=True):
            samples = [DataSample().set_gt_label(int(target)) for target in targets]
            recorder.batches.append({'inputs': inputs, 'data_samples': samples})
        expected.append(gradients_by_hand(runner, recorder, STRENGTH))
    mean = {name: (expected[0][name] + expected[1][name]) / 2 for name in expected[0]}
    for _, gradients, _, _ in ranks:
        plain = {name.removeprefix('module.'): g for name, g in gradients.items()}
        assert_same(plain, mean, 1e-3)
