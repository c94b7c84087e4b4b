"""Studies: stages are shared, failures do not stop the rest, and a killed study goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from easypruner.base.lock import FolderLock
from easypruner.cli.main import main
from easypruner.engine.failures import TRACEBACK
from easypruner.errors import EasyPrunerError
from easypruner.report import study_report
from easypruner.report.result import RunResult
from easypruner.study import executors, job
from easypruner.study.job import run_study_run
from easypruner.study.record import Record
from easypruner.study.runs import runs_of
from easypruner.study.settings import settings_of
from easypruner.study.study_file import read_study
from tests.helpers.plugin_files import write_plugin
from tests.helpers.tiny import tiny_config, write_config


def stages_of(source: str) -> list[dict[str, Any]]:
    return [
        dict(type='Train', name='baseline', epochs=1, row='baseline'),
        dict(
            type='SelectMask',
            source=dict(type=source, budget=dict(type='Macs', keep=0.5)),
        ),
        dict(type='Prune'),
        dict(type='Report', runtimes=[]),
    ]


def write_study(folder: Path, more: str = '', **sources: str) -> Path:
    """Write a study of tiny configs: name of a method -> its mask source."""
    for name, source in sources.items():
        write_config(folder, tiny_config(stages=stages_of(source)), name)
    configs = {name: str(folder / f'{name}.py') for name in sources}
    path = folder / 'mine.py'
    path.write_text(f'configs = {configs!r}\n{more}\n')
    return path


class Ended(executors.Running):
    """A run that has ended at once."""

    def __init__(self, problem: str) -> None:
        self.problem = problem

    def outcome(self) -> str:
        return self.problem

    def stop(self) -> None:
        raise AssertionError


class Here(executors.LocalExecutor):
    """Executes each run at once, in this process; those in ``failing`` fail."""

    failing: tuple[str, ...] = ()

    def start(self, file: Path, name: str) -> executors.Running:
        if name in self.failing:
            return Ended('something is wrong\nand more of it')
        run_study_run(json.loads(file.read_bytes()))
        return Ended('')


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let studies execute their runs in this process."""
    monkeypatch.setattr(executors, 'LocalExecutor', Here)


@pytest.fixture
def here_without_report(here: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Execute runs in this process, and leave out the pictures, which take longer than the rest."""
    monkeypatch.setattr(study_report, 'write', lambda *_, **__: None)


def run_study(study: Path, folder: Path, *arguments: str) -> int:
    store = folder.parent / 'store'
    return main(['study', str(study), '--out', str(folder), '--store', str(store), *arguments])


def statuses(folder: Path) -> dict[str, str]:
    content = json.loads((folder / 'study.json').read_text())
    return {run['id']: run['status'] for run in content['runs']}


@pytest.mark.in_ci
@pytest.mark.usefixtures('here')
def test_stages_are_shared_and_a_failure_does_not_stop_the_rest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    study, folder = write_study(tmp_path, 'scratch = False', l1='L1Norm'), tmp_path / 'out'
    monkeypatch.setattr(Here, 'failing', ('l1_seed0',))
    assert run_study(study, folder) == 2
    captured = capsys.readouterr()
    assert '2 runs with 2 trainings, 1 of them different' in captured.out
    assert '[1/2] l1, seed 0: failed: something is wrong' in captured.out
    assert '[2/2] random, seed 0: done' in captured.out
    assert '1 of 2 runs failed' in captured.err
    assert 'l1, seed 0: something is wrong\nand more of it' in captured.err
    assert statuses(folder) == {'l1_seed0': 'failed', 'random_seed0': 'finished'}
    assert run_study(study, folder) == 2
    assert 'continue it with --resume' in capsys.readouterr().err
    monkeypatch.setattr(Here, 'failing', ('random_seed0',))
    assert run_study(study, folder, '--resume') == 0
    output = capsys.readouterr().out
    assert '0 baseline: linked from the store' in output and '[2/2] l1, seed 0: done' in output
    assert statuses(folder) == {'l1_seed0': 'finished', 'random_seed0': 'finished'}
    l1, other = (RunResult.load(folder / 'runs' / name) for name in statuses(folder))
    assert (l1.name, other.name) == ('l1', 'random')
    assert l1.baseline == other.baseline and l1.seconds['baseline'] == other.seconds['baseline']
    # What a finished run has left is written again if it is damaged.
    weights = folder / 'runs' / 'l1_seed0' / 'pruned.pth'
    whole = weights.read_bytes()
    monkeypatch.setattr(Here, 'failing', ('random_seed0',))
    for damage in (lambda: weights.write_bytes(whole[:-9]), weights.unlink):
        damage()
        assert run_study(study, folder, '--resume') == 0
        assert '[2/2] l1, seed 0: done' in capsys.readouterr().out
        assert weights.read_bytes() == whole


@pytest.mark.slow
@pytest.mark.usefixtures('here')
def test_parts_of_a_study_add_up(tmp_path: Path) -> None:
    study, folder = write_study(tmp_path, 'scratch = random = False', l1='L1Norm'), tmp_path / 'out'
    study.write_text(
        f'{study.read_text()}\nseeds = [3, 4]\n'
        "configs['l1'] = dict(config=configs['l1'],\n"
        "    tune=tune('optim_wrapper.optimizer.lr', [1e-9, 0.05]))\n"
        'budgets = [0.5, 0.6]\n'
    )
    assert run_study(study, folder, '--seeds', '4', '--budgets', '0.5') == 0
    first = json.loads((folder / 'study.json').read_text())['tuned']
    assert [entry['budget']['keep'] for entry in first] == [0.5]
    assert sorted(statuses(folder).values()) == ['finished', *['waiting'] * 3]
    assert run_study(study, folder, '--resume', '--budgets', '0.6', '--seeds', '3') == 0
    content = json.loads((folder / 'study.json').read_text())
    assert [entry['budget']['keep'] for entry in content['tuned']] == [0.5, 0.6]
    assert content['tuned'][0] == first[0]
    waits = [run['status'] == 'waiting' for run in content['runs']]
    assert waits == [True, False, False, True]
    trials = json.loads((folder / 'tuning' / 'study.json').read_text())['runs']
    assert [(run['seed'], run['status']) for run in trials] == [(3, 'finished')] * 4


@pytest.mark.slow
@pytest.mark.usefixtures('here')
def test_values_are_tuned_on_a_part_of_the_training_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_config(tmp_path, tiny_config(stages=stages_of('L1Norm')), 'l1')
    study, folder = tmp_path / 'mine.py', tmp_path / 'out'
    study.write_text(
        'random = scratch = False\n'
        f'configs = dict(l1=dict(config={str(tmp_path / "l1.py")!r},\n'
        "    tune=tune('optim_wrapper.optimizer.lr', [1e-9, 0.05])))\n"
    )
    assert run_study(study, folder) == 0
    assert 'tuning: 2 trials' in capsys.readouterr().out
    [tuned] = json.loads((folder / 'study.json').read_text())['tuned']
    best = max(tuned['trials'], key=lambda trial: trial[1])
    assert tuned['value'] == best[0] and tuned['key'] == 'optim_wrapper.optimizer.lr'
    config = json.loads((folder / 'runs' / 'l1_seed0' / 'run.json').read_text())['config']
    assert config['optim_wrapper']['optimizer']['lr'] == tuned['value']
    assert 'HeldOut' not in str(config)
    [first, _] = sorted((folder / 'tuning' / 'runs').iterdir())
    trial = json.loads((first / 'run.json').read_text())['config']
    assert trial['val_dataloader']['dataset']['dataset']['split'] == 'train'


def test_unfair_differences_and_mistakes_are_named_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = write_study(tmp_path, 'scratch = random = False', l1='L1Norm', other='Random')
    config = (tmp_path / 'other.py').read_text()
    (tmp_path / 'other.py').write_text(f'{config}\nstages[0]["epochs"] = 3\n')
    assert run_study(study, tmp_path / 'out', '--plan') == 0
    output = ' '.join(capsys.readouterr().out.split())
    assert 'unfair: the epochs differ: epochs of all stages: 1 (l1); 3 (other)' in output
    (tmp_path / 'other.py').write_text(f'{config}\nstages[1]["source"]["type"] = "L1Nrm"\n')
    study.write_text(f"{study.read_text()}\noptions = {{'stages.prun.row': 'x'}}\n")
    assert run_study(study, tmp_path / 'out') == 2
    assert "there is no stage 'prun'" in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
    ('more', 'expected'),
    [
        ("options = {'optim_wraper.optimizer.lr': 1.0}", "l1; random; scratch: unknown key 'opti"),
        ("options = {'model.backbone.depth': 9}", 'depth=9 of ResNetCifar'),
        ("options = {'stages': [dict(type='Train', epochs=1)]}\nrandom = scratch = False",
         'l1: no stage writes the results'),
        ("configs['l1'] = dict(config=configs['l1'], tune=tune('train_cg.x', [1, 2]))",
         "l1, x=1; l1, x=2: unknown key 'train_cg'"),
        ("""options = {'train_dataloader.dataset': 3}
configs['l1'] = dict(config=configs['l1'], tune=tune('stages.0.epochs', [1, 2]))""",
         'train_dataloader.dataset is 3; tune(...) holds'),
        ("budgets = [0.5, 0.6]\nsweep = {'stages.1.source.budget.keep': [0.7]}",
         'has a budget, and the budgets of the study'),
        ("budgets = [0.5]\noptions = {'stages.1': dict(source=dict(budget=3))}",
         'has a budget, and the budgets of the study'),
        ('budgets = [0.5, 1e-5]', 'l1, Macs 1e-05; random, Macs 1e-05; scratch, Macs 1e-05: st'),
        ("sweep = {'model.backbone.depth': [8, 9]}\nrandom = scratch = False",
         'l1, depth=9: model: '),
    ],
)  # fmt: skip
def test_what_a_run_would_refuse_is_refused_before_anything_starts(
    more: str, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = write_study(tmp_path, more, l1='L1Norm')
    assert run_study(study, tmp_path / 'out') == 2
    assert expected in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


@pytest.mark.usefixtures('here_without_report')
def test_results_of_other_settings_do_not_count_as_those_of_a_changed_study(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study, folder = write_study(tmp_path, 'scratch = random = False', l1='L1Norm'), tmp_path / 'out'
    text, config = study.read_text(), (tmp_path / 'l1.py').read_text()
    assert run_study(study, folder) == 0
    before = {path: path.read_bytes() for path in folder.rglob('*.json')}
    rate = "options = {'optim_wrapper.optimizer.lr': 0.5}"
    for changed, file, expected in (
        ('budgets = [0.6]', '', 'stages[1].source.budget.keep (was 0.5, is 0.6)'),
        (rate, '', 'optim_wrapper.optimizer.lr (was '),
        ('', 'stages[0]["epochs"] = 2', 'stages[0].epochs (was 1, is 2)'),
    ):
        study.write_text(f'{text}\n{changed}\n')
        (tmp_path / 'l1.py').write_text(f'{config}\n{file}\n')
        assert run_study(study, folder, '--resume', *(['--plan'] if file else [])) == 2
        error = capsys.readouterr().err
        assert f'l1, seed 0: {expected}' in error and '--out' in error
    assert before == {path: path.read_bytes() for path in folder.rglob('*.json')}
    (tmp_path / 'l1.py').write_text(config)
    study.write_text(f'{text}\nseeds = [0, 1]\noptions = {{"train_cfg.val_interval": 7}}\n')
    assert run_study(study, folder, '--resume', '--plan') == 0


@pytest.mark.usefixtures('here_without_report')
def test_a_resumed_study_names_runs_of_other_plugin_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = "scratch = random = False\nplugins = 'mine_too'"
    study, folder = write_study(tmp_path, more, l1='L1Norm'), tmp_path / 'out'
    text = 'from easypruner import hookimpl\n\n@hookimpl\ndef easypruner_components():\n'
    text += '    return []\n'
    plugin = write_plugin(tmp_path / 'mine_too', 'idle.py', text)
    assert run_study(study, folder) == 0
    assert run_study(study, folder, '--resume', '--plan') == 0
    assert 'plugins have changed' not in capsys.readouterr().out
    plugin.write_text(f'{text}# changed\n')
    assert run_study(study, folder, '--resume', '--plan') == 0
    output = ' '.join(capsys.readouterr().out.split())
    assert 'the files of the plugins have changed since these runs began: l1, seed 0' in output


def test_mistakes_of_all_checks_are_named_together(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = write_study(tmp_path, 'scratch = random = False', l1='L1Nrm', other='L1Norm')
    text = (tmp_path / 'other.py').read_text()
    (tmp_path / 'other.py').write_text(f'{text}\nmodel["backbone"]["depth"] = 9\n')
    assert run_study(study, tmp_path / 'out') == 2
    error = capsys.readouterr().err
    assert "l1: stages[1].source: unknown mask source 'L1Nrm'" in error
    assert 'other: model: ' in error and 'depth=9' in error
    assert not (tmp_path / 'out').exists()


def test_budgets_are_those_of_sources_that_options_replace(tmp_path: Path) -> None:
    more = 'random = scratch = False\nbudgets = [0.6]\n'
    more += "options = {'stages.select_mask.source': dict(type='FPGM')}"
    [run] = runs_of(read_study(write_study(tmp_path, more, l1='L1Norm')))
    source = settings_of(run).stages[1].source
    assert (source.type, dict(source.budget)) == ('FPGM', {'type': 'Macs', 'keep': 0.6})


def test_a_report_with_a_mistake_is_not_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = "random = scratch = False\noptions = {'stages.report.runtimes': 3}"
    assert run_study(write_study(tmp_path, more, l1='L1Norm'), tmp_path / 'out') == 2
    error = capsys.readouterr().err
    assert 'runtimes=3 of Report' in error and 'no stage writes' not in error


def test_options_that_do_not_fit_are_named_together(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    study, folder = write_study(tmp_path, l1='L1Norm'), tmp_path / 'taken'
    folder.mkdir()
    (folder / 'mine.txt').touch()
    monkeypatch.setitem(executors._PACKAGES, 'ray', 'a_package_that_is_not_here')
    wrong = ['--executor', 'ray', '--only', 'l2', '--only', 'rndom', '--seeds', '7']
    assert run_study(study, folder, *wrong) == 2
    error = capsys.readouterr().err
    for expected in ('--only l2', "did you mean 'random'?", '--seeds 7', 'easypruner[ray]',
                     'is not that of a study'):  # fmt: skip
        assert expected in error
    assert run_study(study, folder, '--plan') == 0
    assert 'note: the folder' in capsys.readouterr().out


def test_a_damaged_record_says_how_to_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study, folder = write_study(tmp_path, 'scratch = random = False', l1='L1Norm'), tmp_path / 'out'
    Record(folder, 'mine', []).write()
    (folder / 'study.json').write_text('{"name')
    assert run_study(study, folder, '--resume') == 2
    error = capsys.readouterr().err
    assert 'cannot be read as JSON' in error and 'come from the store' in error


def test_a_study_that_runs_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study, folder = write_study(tmp_path, 'scratch = random = False', l1='L1Norm'), tmp_path / 'out'
    lock = FolderLock(folder)
    lock.acquire()
    Record(folder, 'mine', []).write()
    before = (folder / 'study.json').read_bytes()
    for option in ('--overwrite', '--resume'):
        assert run_study(study, folder, option) == 2
        error = capsys.readouterr().err
        assert f'the study folder {str(folder)!r} is in use by' in error and '--out' in error
        assert (folder / 'study.json').read_bytes() == before
    lock.release()


def test_a_traceback_of_other_code_is_in_the_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(content: object) -> None:
        try:
            raise RuntimeError('a bug of a plugin')
        except RuntimeError as error:
            raise EasyPrunerError(f'it failed; {TRACEBACK}') from error

    monkeypatch.setattr(job, 'run_study_run', fail)
    file = tmp_path / 'l1.json'
    file.write_text('{}')
    assert job.run_job(file) == 2
    assert 'RuntimeError: a bug of a plugin' in capsys.readouterr().err
    problem = job.problem_of(file, 2)
    assert problem == f'it failed; the traceback is in {str(tmp_path / "l1.log")!r}'


def test_a_killed_job_is_explained(tmp_path: Path) -> None:
    assert 'when the memory is full' in job.problem_of(tmp_path / 'l1.json', -9)
    assert 'exit code 3' in job.problem_of(tmp_path / 'l1.json', 3)


def test_a_store_that_cannot_be_written_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = write_study(tmp_path, 'scratch = random = False', l1='L1Norm')
    call = ['study', str(study), '--out', str(tmp_path / 'out'), '--store', f'{study}/store']
    assert main(call) == 2
    error = capsys.readouterr().err
    assert 'the store cannot be written' in error and 'is a file, not a folder' in error
    assert not (tmp_path / 'out').exists()


def test_a_study_warns_as_its_runs_will(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tiny_config()
    config['stages'][2]['regularizer']['strength'] = 1e-9
    write_config(tmp_path, config, 'weak')
    study = tmp_path / 'mine.py'
    study.write_text(f'configs = [{str(tmp_path / "weak.py")!r}]\nrandom = scratch = False\n')
    assert run_study(study, tmp_path / 'out', '--plan') == 0
    assert 'warning: weak: mask_sparsity: ' in capsys.readouterr().out


@pytest.mark.slow
def test_a_killed_study_ends_like_an_undisturbed_one(tmp_path: Path) -> None:
    study = write_study(tmp_path, 'scratch = False\nseeds = [0, 1]', l1='L1Norm')
    assert run_study(study, tmp_path / 'whole', '--jobs', '2') == 0
    folder, store = tmp_path / 'killed', tmp_path / 'other_store'
    call = ['study', str(study), '--out', str(folder), '--store', str(store), '--jobs', '2']
    program = [sys.executable, '-m', 'easypruner', *call]
    process = subprocess.Popen(program)
    while not list(folder.glob('runs/*/00_baseline/state.json')):
        assert process.poll() is None
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert main([*call, '--resume']) == 0
    for name in statuses(folder):
        mine = RunResult.load(folder / 'runs' / name)
        theirs = RunResult.load(tmp_path / 'whole' / 'runs' / name)
        assert mine.rows == theirs.rows


@pytest.mark.slow
@pytest.mark.parametrize('executor', ['submitit', 'ray'])
def test_every_executor_gives_the_same_results(executor: str, tmp_path: Path) -> None:
    pytest.importorskip(executor)
    study = write_study(tmp_path, 'scratch = random = False', l1='L1Norm')
    rows = []
    for place in ('local', executor):
        folder, store = tmp_path / place, tmp_path / f'{place}_store'
        arguments = ['--executor', place, '--threads', '1', '--store', str(store)]
        assert main(['study', str(study), '--out', str(folder), *arguments]) == 0
        rows.append(RunResult.load(folder / 'runs' / 'l1_seed0').rows)
    assert rows[0] == rows[1]
