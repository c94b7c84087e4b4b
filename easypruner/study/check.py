"""The check of a study before anything starts: all mistakes together, then its plan in words."""

from __future__ import annotations

from rich.console import Console

from easypruner.errors import Mistakes
from easypruner.pipeline.config_check import check_config
from easypruner.plugins import load_plugins
from easypruner.report.text import format_numbers, plural
from easypruner.study.plan import FoundIn, Plan, plan_study
from easypruner.study.runs import StudyRun, budget_name, runs_of
from easypruner.study.settings import settings_of
from easypruner.study.study_file import Study
from easypruner.study.tuning import example_trials


def check_study(study: Study, console: Console, data: bool) -> Plan:
    """Check the configs of a study and of its trials, and print the plan and its warnings.

    Args:
        study: the study.
        console: prints the plan.
        data: whether models and data are checked, which the machine that submits may not have.

    Raises:
        ConfigError: some have mistakes; the message lists all.
    """
    found, of_trials, warnings = FoundIn(), FoundIn(), FoundIn()
    examples = example_trials(study)
    plan = plan_study(study, found)
    plan_study(examples, of_trials)
    for part, mistakes in ((study, found), (examples, of_trials)):
        if data:
            _check_whole(part, mistakes, warnings)
    found.add_new(of_trials)
    found.raise_all()
    _print(study, plan, console)
    for warning in warnings.lines:
        console.print(f'warning: {warning}', style='yellow', markup=False, highlight=False)
    return plan


def _check_whole(study: Study, found: FoundIn, warnings: FoundIn) -> None:
    """Check whole configs: model, data, masks that meet the budget, and one batch as well.

    They are those of the first run of each method, budget, and value of a swept key that is not of
    a stage. Values of stages are checked by the plan.

    Args:
        study: the study.
        found: gets the mistakes.
        warnings: gets the warnings of the plans of these runs.
    """
    firsts: dict[tuple[str, str, str], StudyRun] = {}
    for run in runs_of(study):
        swept = {key: value for key, value in run.swept.items() if not key.startswith('stages.')}
        firsts.setdefault((run.method, budget_name(run.budget), repr(swept)), run)
    for run in firsts.values():
        mistakes = Mistakes()
        with mistakes.collect():
            load_plugins(study.plugins)
            config = settings_of(run)
            plugins = load_plugins(study.plugins, config.get('custom_imports') or ())
            warnings.add(check_config(config, run.label, plugins.manager, run.seed), run.label)
        found.add(mistakes.found, run.label)


def _print(study: Study, plan: Plan, console: Console) -> None:
    """Print the runs of a study, their trainings, and what is unfair."""
    once, separate = plan.trainings(plan.runs)
    for label in dict.fromkeys(run.label for run in plan.runs):
        seeds = format_numbers(run.seed for run in plan.runs if run.label == label)
        console.print(f'{label}: seeds {seeds}', markup=False, highlight=False)
    text = f'{plural(len(plan.runs), "run")} with {plural(separate, "training")}, '
    console.print(f'{text}{once} of them different', highlight=False)
    trials = sum(method.tune.trials for method in study.methods if method.tune is not None)
    if trials:
        text = plural(trials * len(study.budgets), 'trial')
        console.print(f'before them, {text} on a part of the training data', highlight=False)
    for difference in plan.differences:
        console.print(f'unfair: {difference}', style='yellow', markup=False, highlight=False)
