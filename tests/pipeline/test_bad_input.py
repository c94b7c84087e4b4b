"""Bad input: one message with advice, exit code 2, before anything is written."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from easypruner import Masks
from easypruner.engine.checkpoint import save_weights
from tests.helpers.tiny import prune, tiny_config, tiny_stages, write_config

Content = dict[str, Any]


def changed(**changes: Any) -> Callable[[Path], Content]:
    return lambda folder: tiny_config(**changes)


def at(*location: Any, value: Any) -> Callable[[Path], Content]:
    """Set a value deep in the config."""

    def build(folder: Path) -> Content:
        content = copy.deepcopy(tiny_config())
        inner: Any = content
        for key in location[:-1]:
            inner = inner[key]
        inner[location[-1]] = value
        return content

    return build


def first(**stage: Any) -> Callable[[Path], Content]:
    """Insert a stage at the start."""
    return lambda folder: tiny_config(stages=[stage, *tiny_stages()])


def with_masks(stage: Callable[[str], Content], masks: Content) -> Callable[[Path], Content]:
    def build(folder: Path) -> Content:
        Masks(masks).save(folder / 'masks.safetensors')
        return tiny_config(stages=[stage(str(folder / 'masks.safetensors')), *tiny_stages()])

    return build


def with_weights(**stage: Any) -> Callable[[Path], Content]:
    """Evaluate the weights of another network."""

    def build(folder: Path) -> Content:
        save_weights(torch.nn.Linear(2, 2), folder / 'other.pth')
        stages = [dict(type='Evaluate', row='start', checkpoint=str(folder / 'other.pth'))]
        return tiny_config(stages=[*stages, *tiny_stages()])

    return build


def load(path: str) -> Content:
    return dict(type='LoadMask', path=path)


def select(path: str) -> Content:
    return dict(type='SelectMask', source=dict(type='MaskFile', path=path))


def source(**source: Any) -> Callable[[Path], Content]:
    return at('stages', 1, 'source', value=source)


def without_stage(location: int) -> Callable[[Path], Content]:
    stages = tiny_stages()
    del stages[location]
    return changed(stages=stages)


GROUP = 'backbone.stages.0.0.conv1'
FOUR = torch.ones(4, dtype=torch.bool)
IMAGENET = dict(type='ImageNet', data_root='data/nowhere', split='train', pipeline=[])

CASES: dict[str, tuple[Callable[[Path], Content], list[str]]] = {
    'a misspelled key': (
        changed(optim_wraper=dict()),
        ["unknown key 'optim_wraper'", "did you mean 'optim_wrapper'?"],
    ),
    'a key that nothing reads': (changed(zoo=3), ["unknown key 'zoo'"]),
    'no stages': (changed(stages=None), ['stages']),
    'stages that are not a list': (changed(stages=dict(type='Train')), ['list of stages']),
    'no model': (changed(model=None), ['no model', "model=dict(type='ImageClassifier', ...)"]),
    'no val_cfg': (changed(val_cfg=None), ['no val_cfg; add it, as in val_cfg=dict()']),
    'an unknown backbone': (
        at('model', 'backbone', 'type', value='ResNetCifa'),
        ["model: cannot be built: unknown model 'ResNetCifa'", "did you mean 'ResNetCifar'?"],
    ),
    'a misspelled argument of the backbone': (
        at('model', 'backbone', 'deph', value=8),
        ['model: cannot be built: TypeError: ', "'deph'; did you mean 'depth'?"],
    ),
    'a misspelled argument of a data set': (
        at('train_dataloader', 'dataset', 'splt', value='train'),
        ['train_dataloader: cannot be built: TypeError: ', "'splt'; did you mean 'split'?"],
    ),
    'a learning rate that is a word': (
        at('optim_wrapper', 'optimizer', 'lr', value='fast'),
        ['stages[0]', "'lr': 'fast'", 'TypeError'],
    ),
    'no optimizer': (changed(optim_wrapper=None), ['optim_wrapper']),
    'no length': (
        lambda folder: tiny_config(train_cfg=None, stages=[dict(type='Train')]),
        ['stages[0]', 'epochs'],
    ),
    'an unknown stage': (
        at('stages', 0, 'type', value='Trian'),
        ['stages[0]', "unknown stage 'Trian'", "did you mean 'Train'?"],
    ),
    'an unknown source': (
        source(type='BNScal', budget=dict(type='Macs', keep=0.5)),
        ['stages[1].source', "'BNScal'", "did you mean 'BNScale'?"],
    ),
    'an unknown argument': (
        at('stages', 0, 'epoch', value=3),
        ['stages[0]', "has no argument 'epoch'", "did you mean 'epochs'?"],
    ),
    'an argument of a wrong type': (
        at('stages', 0, 'epochs', value='three'),
        ['stages[0]', "epochs='three'"],
    ),
    'an argument out of range': (
        source(type='BNScale', budget=dict(type='Macs', keep=2.0)),
        ['stages[1].source.budget', 'keep=2.0'],
    ),
    'an unknown model': (at('model', 'type', value='ImageClasifier'), ['model', 'ImageClasifier']),
    'an unknown argument of the model': (
        at('model', 'backbone', 'dept', value=8),
        ['model', "'dept'"],
    ),
    'a network that does not fit its data': (
        at('model', 'backbone', 'in_channels', value=3),
        ['model', '3 channels'],
    ),
    'an unknown data set': (
        at('train_dataloader', 'dataset', 'type', value='Digit'),
        ['train_dataloader', 'Digit'],
    ),
    'an unknown argument of the loader': (
        at('val_dataloader', 'batchsize', value=3),
        ['val_dataloader', "'batchsize'"],
    ),
    'an unknown transform': (
        at('val_dataloader', 'dataset', 'pipeline', value=[dict(type='PackInput')]),
        ['val_dataloader', "unknown transform 'PackInput'", "did you mean 'PackInputs'?"],
    ),
    'no data': (
        at('train_dataloader', 'dataset', value=IMAGENET),
        ['train_dataloader', 'data/nowhere'],
    ),
    'an unknown metric': (
        changed(val_evaluator=dict(type='Acuracy')),
        ['val_evaluator', "unknown metric 'Acuracy'", "did you mean 'Accuracy'?"],
    ),
    'workers that are not a number': (
        at('train_dataloader', 'num_workers', value='two'),
        ['train_dataloader', "num_workers='two'"],
    ),
    'fewer than no workers': (
        at('val_dataloader', 'num_workers', value=-1),
        ['val_dataloader', 'num_workers=-1'],
    ),
    'a training that counts iterations': (
        changed(train_cfg=dict(by_epoch=False, max_iters=10)),
        ['by_epoch=False', 'epochs'],
    ),
    'an unknown argument of the training loop': (
        changed(train_cfg=dict(max_epochs=2, epochs=3)),
        ['train_cfg', "'epochs'"],
    ),
    'an unknown hook': (changed(custom_hooks=[dict(type='Nothing')]), ['custom_hooks', 'Nothing']),
    'an unknown visualizer': (changed(visualizer=dict(type='Nothing')), ['visualizer', 'Nothing']),
    'a regularizer that is none': (
        at('stages', 2, 'regularizer', value=0.5),
        ['stages[2]', 'regularizer=0.5 of Train'],
    ),
    'a very long name': (at('stages', 0, 'name', value='x' * 300), ['stages[0]', 'up to 100']),
    'a network that fills the memory': (
        at('model', 'backbone', 'width', value=3_000_000),
        ['model', 'GB of memory'],
    ),
    'a very deep network': (at('model', 'backbone', 'depth', value=6_000_002), ['depth=6000002']),
    'an unknown optimizer': (
        at('optim_wrapper', 'optimizer', 'type', value='SDG'),
        ['stages[0]', 'SDG'],
    ),
    "an unknown argument of a stage's optimizer": (
        at('stages', 2, 'optim_wrapper', value=dict(optimizer=dict(moment=0.9))),
        ['stages[2]', 'moment'],
    ),
    'an unknown scheduler': (
        changed(param_scheduler=dict(type='CosineLR')),
        ['stages[0]', "unknown scheduler 'CosineLR'"],
    ),
    'a missing checkpoint': (
        first(type='Evaluate', checkpoint='nowhere.pth'),
        ['stages[0]', "no checkpoint 'nowhere.pth'"],
    ),
    'a missing checkpoint to start from': (
        changed(load_from='nowhere.pth'),
        ['load_from', "no checkpoint 'nowhere.pth'"],
    ),
    'a checkpoint of another network': (with_weights(), ['stages[0]', 'other.pth', 'not fit']),
    'a missing mask file': (
        first(type='LoadMask', path='nowhere.safetensors'),
        ['stages[0]', "no mask file 'nowhere.safetensors'"],
    ),
    'a missing mask file of a source': (
        source(type='MaskFile', path='nowhere.safetensors'),
        ['stages[1]', "no mask file 'nowhere.safetensors'"],
    ),
    'masks of a wrong shape': (
        with_masks(load, {GROUP: torch.ones(5, dtype=torch.bool)}),
        ['stages[0]', GROUP, '5 entries', 'expected 4, one for each unit'],
    ),
    'masks of a wrong shape, of a source': (
        with_masks(select, {GROUP: torch.ones(5, dtype=torch.bool)}),
        ['stages[0]', GROUP, '5 entries', 'expected 4, one for each unit'],
    ),
    'masks of a wrong group': (
        with_masks(load, {f'{GROUP}x': FOUR}),
        ['stages[0]', f"'{GROUP}x'", f"did you mean '{GROUP}'?"],
    ),
    'masks that leave nothing': (
        with_masks(select, {GROUP: ~FOUR}),
        ['stages[0]', GROUP, 'keep at least one'],
    ),
    'an impossible budget': (
        source(type='BNScale', budget=dict(type='Macs', keep=0.001)),
        ['stages[1]', 'the lowest possible', 'keeps its best unit'],
    ),
    'a source without its budget': (source(type='BNScale'), ['stages[1]', 'needs a budget']),
    'no masks for MaskSparsity': (without_stage(1), ['stages[1]', 'MaskSparsity', 'no masks']),
    'nothing to cut by': (
        changed(stages=[dict(type='Train'), dict(type='Prune')]),
        ['stages[1]', 'Prune needs masks'],
    ),
    'a strength below 0': (
        at('stages', 2, 'regularizer', 'strength', value=-1.0),
        ['stages[2].regularizer', 'strength=-1.0'],
    ),
    'a misspelled reach': (
        at('stages', 2, 'regularizer', 'strength', value=dict(raech=5)),
        ['stages[2].regularizer', 'raech'],
    ),
    'a part of a batch': (first(type='Calibrate', batches=2.5), ['stages[0]', 'batches=2.5']),
    'a flag that is not a bool': (first(type='Zero', norms='yes'), ['stages[0]', "norms='yes'"]),
    'a path that is not a path': (first(type='LoadMask', path=5), ['stages[0]', 'path=5']),
    'a checkpoint that is not a path': (first(type='Evaluate', checkpoint=5), ['checkpoint=5']),
    'a name with a slash': (first(type='Train', name='../x'), ['stages[0]', "name='../x'"]),
    'a name that is not a string': (first(type='Train', name=3), ['stages[0]', 'name=3']),
    'a row that is not a string': (first(type='Train', row=5), ['stages[0]', 'row=5']),
    'an argument that does not exist': (
        first(type='SelectMask', source=dict(type='Random'), part=0.5),
        ['stages[0]', 'part=0.5'],
    ),
    'an unknown compensation': (
        at('stages', 3, 'compensate', value='men'),
        ['stages[3]', "did you mean 'mean'"],
    ),
    'an average of the average': (
        at('stages', 0, 'ema', value=0.999),
        ['stages[0]', 'ema=0.999', 'ema=0.001'],
    ),
    'an average of nothing': (at('stages', 0, 'ema', value=0), ['stages[0]', 'ema=0 of Train']),
    'masks from a file in several steps': (
        with_masks(
            lambda path: dict(type='Iterative', steps=2, each=[select(path)]), {GROUP: FOUR}
        ),
        ['stages[0]', 'MaskFile does not take a budget'],
    ),
    'a row that is taken': (
        at('stages', 5, 'row', value='baseline'),
        ['stages[5]', "row='baseline' is also the row of stages[0]"],
    ),
    'a seed that is not a number': (changed(seed='seven'), ['seed', "'seven'"]),
    'an unknown option of the graph': (
        changed(graph=dict(ignored=['head'])),
        ["graph has no option 'ignored'", "did you mean 'ignore'"],
    ),
    'an unknown ignored module': (
        changed(graph=dict(ignore=['backbone.stagez'])),
        ["ignore has 'backbone.stagez'", "did you mean 'backbone.stages'"],
    ),
    'a limit of all groups beside one of some': (
        changed(graph=dict(limits={'*': dict(max_removed=0.5), 'round_to': 8})),
        ["'round_to', a limit of all groups, beside '*'"],
    ),
    'a scope that does not have the classes': (
        changed(default_scope='mmengine'),
        ["the model 'ImageClassifier' is one of mmpretrain", "default_scope='mmengine'"],
    ),
    'an unknown argument of the randomness': (
        changed(randomness=dict(determinstic=True)),
        ['randomness: cannot be built', "did you mean 'deterministic'"],
    ),
    'a runner of the user': (
        changed(runner_type='MyRunner'),
        ['runner_type: stages have a Runner of their own'],
    ),
    'no source of masks': (
        at('stages', 1, 'source', value=None),
        ['stages[1]: source=None of SelectMask; expected a MaskSource'],
    ),
    'limits that the budget cannot meet': (
        changed(graph=dict(limits=dict(max_removed=0.1))),
        ['stages[1]', 'MACs', 'limits'],
    ),
}


@pytest.mark.parametrize('case', CASES)
def test_it_is_reported_before_anything_is_written(
    case: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    build, reported = CASES[case]
    work_dir = tmp_path / 'work'
    assert prune(write_config(tmp_path, build(tmp_path)), work_dir) == 2
    message = one_message(capfd)
    for part in reported:
        assert part in message
    assert not work_dir.exists()


def one_message(capfd: pytest.CaptureFixture[str]) -> str:
    """Return the only message on standard error, after a check that there is no traceback."""
    message = capfd.readouterr().err
    assert message.startswith('easypruner: ')
    assert message.count('easypruner: ') == 1
    assert 'Traceback' not in message
    return message


def test_all_mistakes_are_reported_together(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    content = at('stages', 0, 'epoch', value=3)(tmp_path)
    content |= dict(stages=[*content['stages'], dict(type='Evalute')], optim_wraper=dict())
    content['train_dataloader']['dataset'] = IMAGENET
    content['load_from'] = 'nowhere.pth'
    assert prune(write_config(tmp_path, content), tmp_path / 'work') == 2
    message = one_message(capfd)
    assert message.startswith('easypruner: 5 mistakes:\n')
    for part in ('epochs', 'Evaluate', 'optim_wrapper', 'data/nowhere', 'nowhere.pth'):
        assert part in message


def test_mistakes_of_rounds_are_reported_with_all_others(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    each = [dict(type='SelectMask', source=dict(type='L1Nrm')), dict(type='Prune', rows=1)]
    rounds = dict(type='Iterative', steps=0, schedule='agb', each=each)
    content = at('stages', 0, 'epochs', value=-1)(tmp_path)
    content['stages'].insert(1, rounds)
    assert prune(write_config(tmp_path, content), tmp_path / 'work') == 2
    message = one_message(capfd)
    assert message.startswith('easypruner: 5 mistakes:\n')
    for part in ('stages[1]: steps=0', "did you mean 'agp'", "'L1Norm'", "'row'", 'epochs=-1'):
        assert part in message


def test_a_config_without_a_scope_names_classes_of_mmpretrain(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path, tiny_config(default_scope=None))
    assert 'default_scope' not in config.read_text()
    assert prune(config, tmp_path / 'work', '--plan') == 0
    assert 'mask_sparsity' in capsys.readouterr().out


def test_a_misspelled_path_names_the_config_beside_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write_config(tmp_path)
    assert prune(tmp_path / 'tniy.py', tmp_path / 'work') == 2
    assert f'did you mean {str(tmp_path / "tiny.py")!r}?' in one_message(capfd)
    assert prune(Path('qqqqqq'), tmp_path / 'work') == 2
    assert len(one_message(capfd)) < 1500


class TestOptions:
    def test_they_change_elements_of_lists(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        config = write_config(tmp_path)
        arguments = [
            '--plan',
            '--cfg-options',
            'stages.0.epochs=17',
            'stages.mask_sparsity.epochs=23',
        ]
        assert prune(config, tmp_path / 'work', *arguments) == 0
        assert 'train 17 epochs' in (plan := capsys.readouterr().out)
        assert 'train 23 epochs' in plan

    @pytest.mark.parametrize('option', ['stages.99.epochs=3', 'optim_wraper.lr=3', 'model=3'])
    def test_unknown_keys_are_reported(
        self, option: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        arguments = ['--cfg-options', option]
        assert prune(write_config(tmp_path), tmp_path / 'work', *arguments) == 2
        assert option.split('.')[0].split('=')[0] in one_message(capfd)


class TestConfigFile:
    @pytest.mark.parametrize(
        ('text', 'reported'),
        [
            ('model = dict(', ['cannot be read']),
            ('1 / 0', ['ZeroDivisionError']),
            ("_base_ = 'nowhere.py'", ['nowhere.py']),
            ('', ['no stages', 'no model', 'no train_dataloader']),
        ],
    )
    def test_it_is_not_a_config(
        self, text: str, reported: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        config = tmp_path / 'broken.py'
        config.write_text(text)
        assert prune(config, tmp_path / 'work') == 2
        message = one_message(capfd)
        for part in reported:
            assert part in message

    def test_helper_variables_are_not_mistakes(self, tmp_path: Path) -> None:
        content = tiny_config()
        content['batches'] = content['train_dataloader']
        assert prune(write_config(tmp_path, content), tmp_path / 'work', '--plan') == 0
        assert not (tmp_path / 'work').exists()
