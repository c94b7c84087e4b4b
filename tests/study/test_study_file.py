"""Study files: what they declare becomes runs, and mistakes are named together."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from easypruner.cli.main import main
from easypruner.errors import ConfigError
from easypruner.study import choice, grid
from easypruner.study.baselines import baseline_stages
from easypruner.study.parts import Part
from easypruner.study.runs import StudyRun, runs_of
from easypruner.study.study_file import read_study
from easypruner.study.tuning import Tuned, trials_of, with_chosen

FILE = """
configs = dict(
    l1='l1_r20_digits',
    mine=dict(config='masksparsity_r20_digits', sweep={'stages.mask_sparsity.epochs': grid(3, 6)}),
)
seeds = [0, 1, 2]
budgets = [0.5, dict(type='Params', keep=0.3)]
"""


def written(folder: Path, text: str) -> Path:
    path = folder / 'mine.py'
    path.write_text(text)
    return path


def example(heading: str) -> str:
    """Return the first Python block below a heading of docs/study.md."""
    text = (Path(__file__).parents[2] / 'docs' / 'study.md').read_text()
    return text.split(f'# {heading}\n')[1].split('```python\n')[1].split('```')[0]


def test_all_combinations_are_runs(tmp_path: Path) -> None:
    runs = runs_of(read_study(written(tmp_path, FILE)))
    count = Counter(run.method for run in runs)
    assert count == {'l1': 6, 'mine': 12, 'random': 6, 'scratch': 6}
    assert len({run.id for run in runs}) == len(runs)
    assert all(StudyRun.from_json(run.to_json()) == run for run in runs)
    mine = next(run for run in runs if run.method == 'mine')
    assert mine.budget == {'type': 'Macs', 'keep': 0.5}
    assert mine.swept == {'stages.mask_sparsity.epochs': 3}
    assert mine.label == 'mine, Macs 0.5, epochs=3'


def test_the_example_of_the_page(tmp_path: Path) -> None:
    runs = runs_of(read_study(written(tmp_path, example('Studies'))))
    numbers = Counter(run.method for run in runs)
    assert numbers == {'masksparsity': 12, 'l1': 6, 'random': 6, 'scratch': 6}


def test_the_example_with_a_plugin(tmp_path: Path) -> None:
    folder = str(tmp_path / 'my_plugins')
    assert main(['new-plugin', 'MyNorm', '--kind', 'source', '--dir', folder]) == 0
    path = written(tmp_path, example('A method of your own'))
    assert main(['study', str(path), '--plan', '--out', str(tmp_path / 'out')]) == 0


def test_the_example_of_tuning(tmp_path: Path) -> None:
    trials = runs_of(trials_of(read_study(written(tmp_path, example('Tuning')))))
    assert Counter(run.method for run in trials) == {'masksparsity': 3, 'l1': 3}
    assert all(run.held_out for run in trials)


def test_the_example_of_a_search(tmp_path: Path) -> None:
    pytest.importorskip(
        'optuna', reason="optuna is not installed: pip install 'easypruner[optuna]'"
    )
    study = read_study(written(tmp_path, example('Where a grid is not enough')))
    numbers = {m.name: (m.tune.trials, m.tune.keys) for m in study.methods if m.tune}
    rate = 'stages.finetune.optim_wrapper.optimizer.lr'
    assert numbers['l1'] == (12, [rate])
    assert numbers['masksparsity'][0] == 12 and rate in numbers['masksparsity'][1]
    assert not runs_of(trials_of(study))


def test_several_keys_are_tuned_in_all_combinations(tmp_path: Path) -> None:
    text = (
        "configs = dict(l1=dict(config='l1_r20_digits', tune=tune({'a.b': [1, 2], 'c': [3, 4]})))"
    )
    study = read_study(written(tmp_path, text))
    trials = runs_of(trials_of(study))
    assert [dict(run.swept) for run in trials] == [
        {'a.b': first, 'c': second} for first in (1, 2) for second in (3, 4)
    ]
    chosen = [Tuned('l1', None, ['a.b', 'c'], [2, 3], ())]
    runs = runs_of(with_chosen(study, chosen))
    assert [dict(run.options) for run in runs if run.method == 'l1'] == [{'a.b': 2, 'c': 3}]


def test_a_part_has_the_runs_of_the_whole_study(tmp_path: Path) -> None:
    study = read_study(written(tmp_path, FILE))
    part = Part(only=['l1'], seeds=[2], budgets=[0.3]).of(study)
    (run,) = runs_of(part)
    assert (run.method, run.seed, run.budget) == ('l1', 2, {'type': 'Params', 'keep': 0.3})
    assert run in runs_of(study)
    with pytest.raises(ConfigError) as caught:
        Part(only=['mina'], seeds=[3], budgets=[0.4]).of(study)
    for text in (
        "--only mina: the study has no such method; did you mean 'mine'",
        '0, 1, 2',
        '0.5',
    ):
        assert text in str(caught.value)


def test_baselines_can_be_refused_or_be_your_own(tmp_path: Path) -> None:
    text = "configs = dict(l1='l1_r20_digits', random='random_r20_digits')\nscratch = False\n"
    study = read_study(written(tmp_path, text))
    assert [(method.name, method.baseline) for method in study.methods] == [
        ('l1', None), ('random', None)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        ('seeds = [0]', 'configs is None; expected a dict of name -> config'),
        ("configs = ['a']\nseed = [0]", "unknown key 'seed'; did you mean 'seeds'?"),
        ("configs = ['a']\nseeds = [0, 0]", 'expected a list of different whole numbers'),
        ("configs = ['a']\nseeds = 0.5", 'seeds is 0.5'),
        ("configs = ['a']\nbudgets = 0.5", 'budgets is 0.5; expected a list'),
        ("configs = ['a']\nbudgets = [50]", r'budgets\[0\] is 50; expected the share'),
        ("configs = dict(a=dict(config='a', option={}))", "did you mean 'options'"),
        ("configs = ['a']\nsweep = {'k': 3}", r"sweep\['k'\] is 3; expected grid"),
        ("configs = ['a']\nrandom = 'no'", "random is 'no'; expected True or False"),
        ("configs = dict(a=dict(config='a', tune=3))", r'expected tune\(KEY, VALUES\)'),
        ("configs = dict(a=dict(config='a', tune=tune('k', [1], on='test')))", "on='test'"),
        (
            """configs = dict(
                a=dict(config='a', tune=tune('k', [1])), b=dict(config='b', tune=tune('k', [1, 2]))
            )""",
            'numbers of trials differ: a 1, b 2',
        ),
        ('seeds = 2\nconfigs = grid()', r"mine.py', line 2: grid has no values"),
        ("configs = ['a']\nsweep = {'k': []}", r"sweep\['k'\] has no values"),
        ("configs = ['a']\nsweep = {'k': (1, 1)}", r"sweep\['k'\] has a value twice"),
        ("configs = ['a']\nseeds = 10**12", 'or how many, at most'),
        ("configs = ['a']\nbudgets = [0.5, dict(keep=0.5)]", r'budgets\[1\] is'),
        ("\nconfigs = {'a': 'x',\n'b': 'y', 'a': 'z'}", "line 3 has the key 'a' for the second"),
        ("_base_ = 'x.py'\nconfigs = ['a']", '_base_, which configs have'),
        ("\nx = tune('k', [1], trial=3)", "line 2: .*'trial'; did you mean 'trials'"),
        ("configs = ['a'\nseeds = 1", 'line 1: SyntaxError: .* was never closed'),
        ('configs = [a]', 'line 1: NameError'),
        ("configs = {'a\\n': 'x'}", 'expected a string of printable'),
        ("configs = dict(a=dict(cfg='x'))", "unknown key 'cfg'; did you mean 'config'"),
        ("configs = dict(a=dict(config='x', seeds=[1]))", 'give it outside of configs'),
        ("configs = ['a']\noptions = {'k': float('inf')}", 'inf; expected a finite number'),
        ('configs = 1 / 0', 'ZeroDivisionError'),
        ('raise SystemExit(3)', 'SystemExit: 3'),
        ("configs = ['a']\nplugins = 3", 'plugins is 3; expected a list of folders'),
        ("configs = ['a']\nplugins = [3]", r'plugins is \[3\]; expected a list of folders'),
        ("configs = ['a']\noptions = {3: 1}", 'options is {3: 1}; expected a dict of key'),
        ("configs = dict(a=dict(config='a', options={None: 1}))", 'options is {None: 1}; expected'),
        ("configs = dict(a=dict(config='a', recipe=3))", 'recipe is 3; expected the name'),
        ("configs = ['a']\nbudgets = [0.5, 0.5]", 'expected different ones'),
        ("configs = ['a/x.py', 'b/x.py']", 'two have the same name; give a dict'),
        ("configs = ['a']\noptions = {'seed': 1}", "the key 'seed'; leave it out: seeds"),
        ("configs = ['a']\nsweep = {'randomness.seed': [1, 2]}", "sweep has the key 'random"),
        ("configs = dict(a=dict(config='a', tune=tune('work_dir', ['x'])))", 'folder in that of'),
        ("configs = ['a']\nsweep = {'k': [object()]}", r"sweep\['k'\] has the value <object"),
        ("configs = ['a']\noptions = {'k': {1}}", r"options\['k'\] has the value {1}"),
        ("configs = ['a']\nsweep = {'k': choice(1, 2, number=1, seed=None)}", 'seed=None of ch'),
        (
            "configs = dict(a=dict(config='a', tune=tune('k', [1])))\nsweep = {'j': [2]}",
            "got tune and a sweep of 'j'",
        ),
        ("configs = ['a']\nrate = 0.1", "unknown key 'rate'; .*underscore: _rate"),
    ],
)
def test_mistakes_are_named(text: str, expected: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=expected):
        read_study(written(tmp_path, text))


def test_a_file_has_variables_and_imports_what_is_beside_it(tmp_path: Path) -> None:
    (tmp_path / 'shares_of_this_study.py').write_text('SHARES = [0.5, 0.3]')
    text = """
from pathlib import Path
from shares_of_this_study import SHARES as _shares
_rate = 0.1
configs = {'a': dict(config='x', options={'optim_wrapper.optimizer.lr': _rate})}
budgets = _shares
plugins = Path('mine')
"""
    study = read_study(written(tmp_path, text))
    assert study.methods[0].options == {'optim_wrapper.optimizer.lr': 0.1}
    assert [budget and budget['keep'] for budget in study.budgets] == [0.5, 0.3]
    assert study.plugins == (str(tmp_path / 'mine'),)


def test_files_are_found_beside_the_study_and_in_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, other = tmp_path / 'here', tmp_path / 'other'
    for file in (here / 'a.py', here / 'r.py', other / 'a.py', other / 'b.py'):
        file.parent.mkdir(exist_ok=True)
        file.touch()
    monkeypatch.chdir(other)
    text = """
from pathlib import Path
configs = dict(a='a.py', b=dict(config='b.py', recipe='r.py'), c='l1_r20_digits', d=Path('x/d.py'))
"""
    methods = {method.name: method for method in read_study(written(here, text)).methods}
    assert methods['a'].config == str(here / 'a.py')
    assert (methods['b'].config, methods['b'].recipe) == (str(other / 'b.py'), str(here / 'r.py'))
    assert (methods['c'].config, methods['d'].config) == ('l1_r20_digits', str(here / 'x' / 'd.py'))


def test_values_of_numpy_are_values_of_json(tmp_path: Path) -> None:
    text = """
import numpy as np
configs = dict(a=dict(config='x', sweep={'lr': grid(np.array([0.5, 0.25])), 'k': grid(np.int64(3))},
                      options={'scale': np.float32(0.5)}))
seeds = np.arange(2)
budgets = np.array([0.5, 0.25])
random = scratch = False
"""
    runs = runs_of(read_study(written(tmp_path, text)))
    again = [StudyRun.from_json(json.loads(json.dumps(run.to_json()))) for run in runs]
    assert again == runs and len(runs) == 8
    assert runs[0].swept == {'lr': 0.5, 'k': 3}


def test_folders_have_names_of_any_script_and_length(tmp_path: Path) -> None:
    text = """
configs = {'日本': 'x', '中国': 'x', 'a' * 300: 'x', 'a' * 299 + 'b': 'x', '../..': 'x'}
sweep = {'stages.1.source': [dict(type='L1Norm', p=2), dict(type='L1Norm', p=[1, None])]}
random = scratch = False
"""
    runs = runs_of(read_study(written(tmp_path, text)))
    for run in runs:
        (tmp_path / f'{run.id}.error.json').touch()
        assert run.id.isprintable() and '/' not in run.id and not run.id.startswith('.')
    assert len({run.id for run in runs}) == 10
    assert runs[0].label == '日本, source=L1Norm(p=2)'


def test_all_mistakes_are_named_together(tmp_path: Path) -> None:
    text = """
configs = dict(a=3, b=dict(config='b', recip=''), c='l1_r20_digit', d='l1_r20_digits')
seeds = 'x'
budget = 1
budgets = [2, 0.5, 0]
sweep = {'k': []}
"""
    with pytest.raises(ConfigError) as caught:
        read_study(written(tmp_path, text))
    assert len(caught.value.mistakes) == 8
    assert any("did you mean 'l1_r20_digits'" in each for each in caught.value.mistakes)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    written(tmp_path, "configs = ['l1_r20_digits']")
    with pytest.raises(ConfigError, match=r"did you mean '.*mine\.py'"):
        read_study(tmp_path / 'mien.py')
    with pytest.raises(ConfigError, match='is a folder'):
        read_study(tmp_path)
    with pytest.raises(ConfigError, match='which configs have'):
        read_study(written(tmp_path, "_base_ = 'x.py'\nmodel = dict()"))


def test_values_may_be_a_tuple_a_range_or_an_array(tmp_path: Path) -> None:
    text = """
import numpy as np
configs = dict(a=dict(config='x', sweep={'j': (1, 2), 'k': range(2), 'l': np.array([0.5, 0.25])}))
random = scratch = False
"""
    assert len(runs_of(read_study(written(tmp_path, text)))) == 8


def test_names_that_give_one_folder_are_refused(tmp_path: Path) -> None:
    text = "configs = {'a b': 'x', 'a-b': 'y'}\nrandom = scratch = False\n"
    with pytest.raises(ConfigError, match="the folder 'a-b_seed0'"):
        runs_of(read_study(written(tmp_path, text)))
    # On some file systems, these are one folder.
    with pytest.raises(ConfigError, match="the folder 'A_seed0'"):
        runs_of(read_study(written(tmp_path, "configs = {'A': 'x', 'a': 'y'}\n")))


def test_choices_are_some_of_the_values_and_always_the_same() -> None:
    drawn = choice(*range(100), number=5)
    assert len(drawn.values) == 5 and set(drawn.values) < set(range(100))
    assert drawn == choice(range(100), number=5) != choice(range(100), number=5, seed=1)
    with pytest.raises(ConfigError, match='at most 2'):
        choice(1, 2, number=3)
    with pytest.raises(ConfigError, match='a value twice'):
        grid(1, 1)


class TestBaselines:
    """The stages of the added baselines."""

    STAGES = (
        dict(type='Train', name='baseline', epochs=8, row='baseline'),
        dict(type='Train', name='push', epochs=6, regularizer=dict(type='GlobalSparsity')),
        dict(type='SelectMask', source=dict(type='BNScale', budget=dict(type='Macs', keep=0.5))),
        dict(type='Prune'),
        dict(type='Train', name='tuned', epochs=4, lr='10%'),
        dict(type='Report', runtimes=[]),
    )
    EPOCHS = (8, 6, 0, 0, 4, 0)

    @pytest.mark.parametrize(('kind', 'trained'), [('random', 10), ('scratch', 18)])
    def test_they_share_the_start_and_the_budget(self, kind: str, trained: int) -> None:
        stages = baseline_stages(kind, self.STAGES, self.EPOCHS)
        assert stages[0] == self.STAGES[0] and stages[-1] == self.STAGES[-1]
        assert stages[1]['source']['budget'] == dict(type='Macs', keep=0.5)
        trainings = [stage['epochs'] for stage in stages if stage['type'] == 'Train']
        assert trainings == [8, trained]

    def test_a_config_without_a_budget_is_refused(self) -> None:
        with pytest.raises(ConfigError, match='random = False'):
            baseline_stages('random', self.STAGES[:1], self.EPOCHS[:1])
