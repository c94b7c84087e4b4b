"""A whole run, and the files that it writes for users of the network."""

from __future__ import annotations

import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import Runner
from torch import nn

import easypruner
from easypruner import Masks
from easypruner.engine.checkpoint import read_weights
from easypruner.report.result import RunResult
from tests.helpers.optimizers import moved_by_sgd, pulled_to_zero
from tests.helpers.plugin_files import write_plugin
from tests.helpers.tiny import (
    VAL_IMAGES,
    accuracy_of,
    original_model,
    prune,
    summary,
    tiny_config,
    tiny_stages,
    write_config,
)

LEFT = (
    'pruned.pth', 'architecture.json', 'masks.safetensors', 'summary.json', 'pruned_config.py',
    'scales.png', 'channels.png', 'details.json',
)  # fmt: skip
ROWS = ['baseline', 'sparse', 'pruned', 'calibrated', 'finetuned']


class TestWhatItLeaves:
    def test_every_file_is_there(self, finished: Path) -> None:
        for name in LEFT:
            assert (finished / name).stat().st_size > 0
        for stage in ('00_baseline', '02_mask_sparsity', '05_finetune'):
            assert list((finished / stage).rglob('*.log'))

    def test_the_summary(self, finished: Path) -> None:
        result = RunResult.load(finished)
        assert [row.name for row in result.rows] == ROWS
        assert result.seed == 0
        assert len(result.seconds) == len(tiny_stages()) - 1
        full, cut = result.rows[0], result.rows[-1]
        assert result.budget is not None
        assert result.budget.kind == 'Macs'
        assert result.budget.asked == 0.5
        assert result.budget.delivered == pytest.approx(cut.macs / full.macs)
        assert result.budget.delivered <= 0.5
        for row in result.rows:
            correct = row.accuracy * VAL_IMAGES / 100
            assert correct == pytest.approx(round(correct), abs=1e-3)
        assert result.rows[-1].bytes == (finished / 'pruned.pth').stat().st_size
        masks = Masks.load(finished / 'masks.safetensors')
        assert result.scales is not None
        assert result.scales.count >= masks.removed_units > 0

    def test_costs_are_those_of_the_networks(self, finished: Path) -> None:
        result = RunResult.load(finished)
        inputs = torch.zeros(1, 1, 8, 8)
        full = original_model()
        graph = easypruner.trace(full, inputs)
        assert (graph.cost().macs, graph.cost().params) == (
            result.rows[0].macs, result.rows[0].params,
        )  # fmt: skip
        pruned = loaded(finished)
        params = sum(p.numel() for p in pruned.parameters())
        assert params == result.rows[-1].params < result.rows[0].params
        assert easypruner.trace(pruned, inputs).cost().macs == result.rows[-1].macs

    def test_weights_are_plain(self, finished: Path) -> None:
        weights = torch.load(finished / 'pruned.pth', weights_only=True)
        assert weights.keys() == original_model().state_dict().keys()

    def test_the_record_is_that_of_the_masks(self, finished: Path) -> None:
        masks = Masks.load(finished / 'masks.safetensors')
        model = original_model()
        easypruner.prune(model, masks, example_inputs=torch.zeros(1, 1, 8, 8))
        assert shapes(model) == shapes(loaded(finished))

    def test_the_removed_scales_were_pushed_as_far_as_announced(self, finished: Path) -> None:
        """Six updates with momentum push beyond zero: where is known from the optimizer alone."""
        rates = [0.05 * (1 + math.cos(math.pi * update / 6)) for update in range(6)]
        strength = 5.0 / moved_by_sgd(rates, [1.0] * 6, 0.9)
        masks = Masks.load(finished / 'masks.safetensors')
        graph = easypruner.trace(original_model(), torch.zeros(1, 1, 8, 8))
        before = read_weights(finished / '00_baseline' / 'weights.pth')
        after = read_weights(finished / '02_mask_sparsity' / 'weights.pth')
        for (name, _), keep in graph.keep(masks).items():
            if graph.operands[name] == 'batch_norm.weight':
                for start, end in zip(before[name][~keep], after[name][~keep], strict=True):
                    expected = pulled_to_zero(float(start), strength, rates, 0.9)
                    assert float(end) == pytest.approx(expected, abs=0.02)
                assert (after[name] - before[name])[keep].abs().max() < 0.02


def loaded(run: Path) -> nn.Module:
    return easypruner.load_pruned(original_model, run / 'pruned.pth', run / 'architecture.json')


def shapes(model: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in model.state_dict().items()}


class TestPrunedConfig:
    def test_it_gives_the_accuracy_of_the_summary(
        self, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        accuracy = accuracy_of(finished / 'pruned_config.py', tmp_path / 'evaluation')
        assert accuracy == summary(finished)['rows'][-1]['accuracy']

    def test_its_folder_can_be_moved(self, finished: Path, tmp_path: Path) -> None:
        for name in ('pruned.pth', 'architecture.json', 'pruned_config.py'):
            shutil.copy(finished / name, tmp_path / name)
        accuracy = accuracy_of(tmp_path / 'pruned_config.py', tmp_path / 'evaluation')
        assert accuracy == summary(finished)['rows'][-1]['accuracy']

    def test_it_loads_the_weights(self, finished: Path, tmp_path: Path) -> None:
        """The accuracy depends on the weights: with other weights it differs."""
        for name in ('architecture.json', 'pruned_config.py'):
            shutil.copy(finished / name, tmp_path / name)
        weights = read_weights(finished / 'pruned.pth')
        weights['head.fc.bias'] = torch.eye(10)[3] * 1e6
        torch.save(weights, tmp_path / 'pruned.pth')
        settings = Config.fromfile(tmp_path / 'pruned_config.py')
        settings.work_dir = str(tmp_path / 'evaluation')
        runner = Runner.from_cfg(settings)
        runner.test()
        assert torch.equal(runner.model.head.fc.bias.cpu(), weights['head.fc.bias'])

    def test_it_keeps_the_classes_of_the_original(self, finished: Path) -> None:
        settings = Config.fromfile(finished / 'pruned_config.py')
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            model = MODELS.build(settings.model)
        assert type(model) is type(original_model())
        assert shapes(model) == shapes(loaded(finished))

    def test_modules_of_the_user_are_imported(self, tmp_path: Path) -> None:
        """A model that custom_imports registers is known when the config is read."""
        imports = dict(imports=['json'])
        stages = [dict(type='Train', epochs=1, row='baseline'), dict(type='Report')]
        config = write_config(tmp_path, tiny_config(custom_imports=imports, stages=stages))
        assert prune(config, tmp_path / 'run') == 0
        settings = Config.fromfile(tmp_path / 'run' / 'pruned_config.py')
        assert settings.custom_imports == imports


class TestWorkDirectory:
    def test_an_existing_one_is_refused(
        self, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / 'run').mkdir()
        (tmp_path / 'run' / 'mine.txt').write_text('mine')
        assert prune(write_config(tmp_path), tmp_path / 'run') == 2
        message = capfd.readouterr().err
        assert message.startswith('easypruner: ')
        assert '--resume' in message
        assert '--overwrite' in message
        assert [file.name for file in (tmp_path / 'run').iterdir()] == ['mine.txt']

    def test_overwrite_does_not_replace_other_folders(
        self, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / 'run').mkdir()
        (tmp_path / 'run' / 'mine.txt').write_text('mine')
        assert prune(write_config(tmp_path), tmp_path / 'run', '--overwrite') == 2
        assert '--overwrite does not replace' in capfd.readouterr().err
        assert (tmp_path / 'run' / 'mine.txt').read_text() == 'mine'

    def test_a_mistake_does_not_delete_the_old_run(self, finished: Path, tmp_path: Path) -> None:
        run = tmp_path / 'run'
        shutil.copytree(finished, run)
        config = write_config(tmp_path, tiny_config(optim_wraper=dict(type='OptimWrapper')))
        assert prune(config, run, '--overwrite') == 2
        assert summary(run) == summary(finished)

    def test_a_file_is_not_a_directory(
        self, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / 'run').write_text('')
        assert prune(write_config(tmp_path), tmp_path / 'run') == 2
        assert 'is a file' in capfd.readouterr().err

    def test_resume_and_overwrite_exclude_each_other(
        self, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        arguments = ['--resume', '--overwrite']
        assert prune(write_config(tmp_path), tmp_path / 'run', *arguments) == 2
        assert 'choose one of them' in capfd.readouterr().err

    def test_plan_writes_nothing(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        config = write_config(tmp_path / 'config')
        assert prune(config, tmp_path / 'run', '--plan') == 0
        assert [path.name for path in tmp_path.iterdir()] == ['config']
        plan = capsys.readouterr().out
        for part in ('baseline', 'train 2 epochs', 'Macs 0.5', 'MaskSparsity', '5 (strength'):
            assert part in plan


class TestOtherStages:
    def test_masks_of_another_run_give_its_architecture(
        self, finished: Path, tmp_path: Path
    ) -> None:
        path = str(finished / 'masks.safetensors')
        stages = [
            dict(type='LoadMask', path=path),
            dict(type='Train', epochs=1, regularizer=dict(type='MaskSparsity', strength=0.1)),
            dict(type='Prune'),
            dict(type='Report'),
        ]
        assert prune(write_config(tmp_path, tiny_config(stages=stages)), tmp_path / 'run') == 0
        mine, theirs = (
            json.loads((run / 'architecture.json').read_text())['tensors']
            for run in (tmp_path / 'run', finished)
        )
        assert mine == theirs
        assert summary(tmp_path / 'run')['budget'] is None

    def test_evaluate_gives_a_trained_network_a_row(self, finished: Path, tmp_path: Path) -> None:
        weights = str(finished / '00_baseline' / 'weights.pth')
        stages = [dict(type='Evaluate', checkpoint=weights), dict(type='Report')]
        assert prune(write_config(tmp_path, tiny_config(stages=stages)), tmp_path / 'run') == 0
        assert summary(tmp_path / 'run')['rows'] == summary(finished)['rows'][:1]

    def test_a_run_starts_from_load_from(self, finished: Path, tmp_path: Path) -> None:
        start = finished / '00_baseline' / 'weights.pth'
        stages = [dict(type='Evaluate'), dict(type='Report')]
        content = tiny_config(stages=stages, load_from=str(start))
        assert prune(write_config(tmp_path, content), tmp_path / 'run') == 0
        assert summary(tmp_path / 'run')['rows'] == summary(finished)['rows'][:1]

    def test_two_rounds_leave_one_record_of_both(self, tmp_path: Path) -> None:
        half = dict(type='Random', budget=dict(type='Macs', keep=0.6))
        stages = [
            dict(type='SelectMask', source=half, name='first'),
            dict(type='Prune', row='once', name='cut'),
            dict(type='Train', epochs=1),
            dict(type='SelectMask', source=half, name='second'),
            dict(type='Prune', row='twice', name='cut_again'),
            dict(type='Report'),
        ]
        assert prune(write_config(tmp_path, tiny_config(stages=stages)), tmp_path / 'run') == 0
        once, twice = summary(tmp_path / 'run')['rows']
        assert twice['macs'] < once['macs']
        model = loaded(tmp_path / 'run')
        assert sum(p.numel() for p in model.parameters()) == twice['params']
        accuracy = accuracy_of(tmp_path / 'run' / 'pruned_config.py', tmp_path / 'evaluation')
        assert accuracy == twice['accuracy']

    def test_calibrate_averages_what_the_batch_norms_see(self, tmp_path: Path) -> None:
        from easypruner.pipeline.stages.common import forward_pass
        from easypruner.strategies.measures.calibration import calibrate

        model = original_model().eval()
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        generator = torch.Generator().manual_seed(0)
        batches = [
            {'inputs': [torch.randint(256, (1, 8, 8), generator=generator) for _ in range(4)]}
            for _ in range(3)
        ]
        calibrate(model, batches, forward_pass)
        seen = [model.data_preprocessor(batch)['inputs'] for batch in batches]
        maps = [model.backbone.conv1(inputs) for inputs in seen]
        norm = model.backbone.bn1
        mean = torch.stack([m.mean((0, 2, 3)) for m in maps]).mean(0)
        var = torch.stack([m.var((0, 2, 3)) for m in maps]).mean(0)
        torch.testing.assert_close(norm.running_mean, mean)
        torch.testing.assert_close(norm.running_var, var)
        assert not any(module.training for module in model.modules())
        assert {m.momentum for m in model.modules() if isinstance(m, nn.BatchNorm2d)} == {0.1}
        assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())

    def test_a_report_of_nothing_is_an_error(
        self, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        stages = [dict(type='Train', epochs=1), dict(type='Report')]
        config = write_config(tmp_path, tiny_config(stages=stages))
        assert prune(config, tmp_path / 'run') == 2
        assert 'Report needs at least one row' in capfd.readouterr().err
        assert not (tmp_path / 'run').exists()


class TestSeed:
    @pytest.mark.parametrize('arguments', [(), ('--seed', '3')])
    def test_the_same_seed_gives_the_same_run(
        self, arguments: tuple[str, ...], finished: Path, tmp_path: Path
    ) -> None:
        stages = tiny_stages()[:2]
        config = write_config(tmp_path, tiny_config(stages=stages))
        assert prune(config, tmp_path / 'run', *arguments) == 0
        mine = read_weights(tmp_path / 'run' / '00_baseline' / 'weights.pth')
        theirs = read_weights(finished / '00_baseline' / 'weights.pth')
        same = all(torch.equal(mine[name], theirs[name]) for name in theirs)
        assert same == (not arguments)


class TestOutput:
    def test_a_run_is_quiet(self, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        stages = [dict(type='Train', epochs=1, row='baseline'), dict(type='Report')]
        config = write_config(tmp_path, tiny_config(stages=stages))
        assert prune(config, tmp_path / 'run') == 0
        output = capfd.readouterr()
        assert output.err == ''
        assert len(output.out.splitlines()) < 40
        assert 'mmengine' not in output.out
        (log,) = (tmp_path / 'run' / '00_train').rglob('*.log')
        assert 'Config:' in log.read_text()

    def test_verbose_shows_the_log(self, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        stages = [dict(type='Train', epochs=1)]
        config = write_config(tmp_path, tiny_config(stages=stages))
        assert prune(config, tmp_path / 'run', '--verbose') == 0
        assert 'Config:' in capfd.readouterr().out


def test_a_weak_penalty_is_a_warning_beforehand_and_in_the_summary(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stages = tiny_stages()
    stages[2]['regularizer']['strength'] = 1e-4
    config = write_config(tmp_path, tiny_config(stages=stages))
    assert prune(config, tmp_path / 'run', '--plan') == 0
    plan = capsys.readouterr().out
    assert 'MaskSparsity has a reach of' in plan
    assert prune(config, tmp_path / 'run') == 0
    weak, cut = summary(tmp_path / 'run')['warnings']
    assert weak.startswith('mask_sparsity: MaskSparsity has a reach of')
    assert re.match(r'mask_sparsity: (\d+) of \1 removed norm scales are above 0.01', cut)


def test_plugins_see_every_runner(tmp_path: Path) -> None:
    reported = tmp_path / 'told'
    text = f"""
from pathlib import Path
from easypruner import hookimpl

@hookimpl
def easypruner_configure_runner(runner, state):
    with Path({str(reported)!r}).open('a') as file:
        file.write(f'{{state.stage.name}} {{Path(runner.work_dir) == state.stage}}\\n')
"""
    plugin = write_plugin(tmp_path / 'plugins', 'seeing.py', text)
    stages: list[dict[str, Any]] = [
        dict(type='Train', epochs=1),
        dict(type='Evaluate', row='again'),
    ]
    config = write_config(tmp_path, tiny_config(stages=stages))
    assert prune(config, tmp_path / 'run', '--plugins', str(plugin.parent)) == 0
    assert reported.read_text().splitlines() == ['00_train True', '01_evaluate True']


def test_a_config_chooses_what_may_be_pruned(tmp_path: Path) -> None:
    stages = [
        dict(type='SelectMask', source=dict(type='L1Norm', budget=dict(type='Ratio', keep=0.5))),
        dict(type='Prune'),
        dict(type='Report'),
    ]
    graph = dict(ignore=['backbone.stages.0.*'], limits=dict(round_to=2))
    content = tiny_config(stages=stages, graph=graph)
    assert prune(write_config(tmp_path, content), tmp_path / 'work') == 0
    masks = Masks.load(tmp_path / 'work' / 'masks.safetensors')
    assert masks and masks.removed_units
    assert all(masks.kept(name) % 2 == 0 for name in masks)
    assert not any(name.startswith('backbone.stages.0.') for name in masks)
