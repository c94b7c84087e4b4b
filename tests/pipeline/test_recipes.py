"""Recipes: the stages of a method fit any config, and take their budget from the command line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config

from easypruner.errors import ConfigError
from easypruner.pipeline.recipes import Recipe, find_recipe, read_keep, shipped_recipes
from tests.helpers.tiny import prune, summary, tiny_config, write_config

RECIPES = sorted(shipped_recipes())
METHODS = {
    'masksparsity',
    'slimming',
    'l1',
    'fpgm',
    'taylor',
    'random',
    'uniform',
    'scratch',
    'agp',
}


def base() -> dict[str, Any]:
    content = tiny_config()
    del content['stages']
    return content


def completed(recipe: Recipe, options: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    config = recipe.complete(Config(base()), options or {})
    return config.to_dict()['stages']  # type: ignore[no-any-return]


def test_the_methods_have_recipes() -> None:
    assert set(RECIPES) >= METHODS
    assert {file.parent.name for file in shipped_recipes().values()} == {'_recipes_'}


@pytest.mark.parametrize('name', RECIPES)
def test_each_fits_a_config_without_stages(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path, base())
    options = '--recipe', name, '--macs', '0.6', '--plan'
    assert prune(config, tmp_path / 'run', *options) == 0
    plan = capsys.readouterr().out
    assert f'tiny_{name}: ImageClassifier' in plan
    assert 'budget Macs 0.6' in plan
    assert 'baseline' in plan
    # The config has 2 epochs, of which a recipe has shares.
    assert 'train 2 epochs' in plan


@pytest.mark.parametrize('name', RECIPES)
def test_rivals_train_as_long(name: str) -> None:
    config = Config.fromfile(find_recipe(name)).to_dict()
    total = 0.0
    for stage in config['stages']:
        # New weights are trained for as long as the others in all.
        total = 0.0 if stage['type'] == 'Reinitialise' else total
        rounds = stage.get('steps', 1)
        for inner in stage.get('each', [stage]):
            total += rounds * float(inner.get('epochs', '0%').rstrip('%'))
    assert total == pytest.approx(325, abs=6)


@pytest.mark.slow
def test_a_recipe_runs_with_both_budgets(tmp_path: Path) -> None:
    config = write_config(tmp_path, base())
    options = '--recipe', 'l1', '--macs', '70%', '--params', '0.6'
    short = '--cfg-options', 'stages.0.epochs=1', 'stages.4.epochs=1', 'stages.3.batches=1'
    assert prune(config, tmp_path / 'run', *options, *short) == 0
    before, after = (summary(tmp_path / 'run')['rows'][i] for i in (0, -1))
    assert after['macs'] <= 0.7 * before['macs']
    assert after['params'] <= 0.6 * before['params']


def test_a_base_without_a_seed_chooses_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / 'base.py').write_text('randomness = dict(seed=None, deterministic=False)')
    content = base()
    content['_base_'] = 'base.py'
    config = tmp_path / 'mine.py'
    config.write_text('\n'.join(f'{key} = {value!r}' for key, value in content.items()))
    assert prune(config, tmp_path / 'run', '--plan', '--recipe', 'l1') == 0
    seed = re.search(r'^seed: (\d+)$', capsys.readouterr().out, re.MULTILINE)
    assert seed is not None
    assert prune(config, tmp_path / 'run', '--plan', '--recipe', 'l1', '--seed', seed[1]) == 0


def test_a_recipe_is_a_base_too(tmp_path: Path) -> None:
    content = '\n'.join(f'{key} = {value!r}' for key, value in base().items())
    (tmp_path / 'base.py').write_text(content)
    config = tmp_path / 'mine.py'
    config.write_text("_base_ = ['base.py', 'easypruner::_recipes_/slimming.py']\n")
    assert prune(config, tmp_path / 'run', '--plan', '--macs', '0.7') == 0


def test_a_recipe_can_be_a_file(tmp_path: Path) -> None:
    file = tmp_path / 'mine.py'
    file.write_text("stages = [dict(type='SelectMask', source=dict(type='Random'))]")
    recipe = Recipe.of(str(file), '0.5', None)
    assert completed(recipe)[0]['source']['budget'] == dict(type='Macs', keep=0.5)
    file.write_text("stage = [dict(type='SelectMask')]")
    with pytest.raises(ConfigError, match='has no stages'):
        completed(recipe)


def test_the_rounds_of_iterative_stages_get_the_budget() -> None:
    stages = completed(Recipe.of('agp', '0.3', '0.4'))
    budgets = [each['source']['budget'] for each in stages[1]['each'] if 'source' in each]
    assert budgets == [[dict(type='Macs', keep=0.3), dict(type='Params', keep=0.4)]]


@pytest.mark.parametrize('options', [{'load_from': 'trained.pth'}, {}])
def test_a_trained_network_is_not_trained_first(options: dict[str, Any]) -> None:
    first = completed(Recipe.of('l1', None, None), options)[0]
    assert first['type'] == ('Evaluate' if options else 'Train')
    assert (first['name'], first['row']) == ('baseline', 'baseline')


@pytest.mark.parametrize(
    ('arguments', 'expected'),
    [
        (['--recipe', 'masksparstiy'], "did you mean 'masksparsity'? Known names: agp, "),
        (['--recipe', 'zzz'], 'known names: agp, '),
        (['--macs', '0.5'], 'no stage of the config selects masks; add a recipe: --recipe'),
        (['--recipe', 'l1', '--macs', '50'], '--macs 50: expected the share to keep'),
        (['--recipe', 'l1', '--params', 'half'], '--params half: expected the share to keep'),
    ],
)
def test_wrong_options_are_explained(
    arguments: list[str], expected: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert prune(write_config(tmp_path, base()), tmp_path / 'run', *arguments) == 2
    message = capfd.readouterr().err
    assert expected in message
    assert message.count('\n') == 1


@pytest.mark.parametrize('name', ['masksparsity', 'masksparsity_l1', 'slimming', 'polarization'])
def test_scales_that_a_network_lacks_are_one_message(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    content = base()
    content['model'] = dict(
        type='ImageClassifier',
        backbone=dict(type='LeNet5', num_classes=-1),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', num_classes=10, in_channels=120),
    )
    for loader in ('train_dataloader', 'val_dataloader'):
        pipeline = [dict(type='Resize', scale=32), dict(type='PackInputs')]
        content[loader]['dataset']['pipeline'] = pipeline
    assert prune(write_config(tmp_path, content), tmp_path / 'run', '--recipe', name) == 2
    message = capfd.readouterr().err
    assert 'norm scales (batch_norm)' in message
    assert message.count('\n') == 1


@pytest.mark.parametrize(('text', 'keep'), [('0.5', 0.5), ('50%', 0.5), ('12.5%', 0.125)])
def test_shares_to_keep(text: str, keep: float) -> None:
    assert read_keep(text, '--macs') == keep


@pytest.mark.parametrize('text', ['0', '1', '100%', '-1', 'nan', 'inf', '', '%'])
def test_no_shares_to_keep(text: str) -> None:
    with pytest.raises(ConfigError, match=r'such as 0.5 or 50%'):
        read_keep(text, '--macs')
