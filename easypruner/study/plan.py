"""The plan of a study: its configs are checked, and compared, before anything starts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mmengine.registry import init_default_scope

from easypruner.base.json_fields import content_hash
from easypruner.engine.compat import prepare
from easypruner.engine.config import DEFAULT_SCOPE
from easypruner.errors import ConfigError, Mistakes
from easypruner.pipeline.fingerprint import essential, plain, stage_fingerprint
from easypruner.pipeline.preflight import PlannedStage, check_outline, expand
from easypruner.pipeline.stages.report import Report
from easypruner.plugins import load_plugins
from easypruner.report.fairness import list_different_settings
from easypruner.study.runs import StudyRun, runs_of
from easypruner.study.settings import epochs_of, plain_parts, settings_of, trained_epochs
from easypruner.study.study_file import Study

_MOST_LABELS = 4


@dataclass(frozen=True)
class Plan:
    """What a study will do.

    Attributes:
        runs: all runs.
        stages: id of a run -> the key of each of its stages and their epochs. Stages of equal keys
            are computed once.
        differences: what makes the comparison unfair, in words.
    """

    runs: tuple[StudyRun, ...]
    stages: dict[str, tuple[tuple[str, int], ...]]
    differences: tuple[str, ...]

    def epochs(self, runs: Iterable[StudyRun]) -> int:
        """Return the number of epochs to train for some runs, those that they share once."""
        return sum({key: n for run in runs for key, n in self.stages[run.id]}.values())

    def trainings(self, runs: Iterable[StudyRun]) -> tuple[int, int]:
        """Return the number of trainings of some runs: with shared ones once, and without."""
        keys = [key for run in runs for key, epochs in self.stages[run.id] if epochs]
        return len(set(keys)), len(keys)


class FoundIn:
    """Mistakes in the configs of runs, each named once with the runs that have it."""

    def __init__(self) -> None:
        self._labels: dict[str, dict[str, None]] = {}

    def add(self, mistakes: Iterable[str], label: str) -> None:
        """Add the mistakes in the config of a run."""
        for mistake in mistakes:
            self._labels.setdefault(mistake, {})[label] = None

    def add_new(self, others: FoundIn) -> None:
        """Add what is not known yet of the mistakes in other runs."""
        for mistake, labels in others._labels.items():
            self._labels.setdefault(mistake, labels)

    @property
    def lines(self) -> list[str]:
        """A line for each mistake."""
        return [f'{_listed([*who])}: {mistake}' for mistake, who in self._labels.items()]

    def raise_all(self) -> None:
        """Raise one ConfigError with all mistakes, if there are any."""
        if self._labels:
            raise ConfigError(*self.lines)


def plan_study(study: Study, found: FoundIn | None = None) -> Plan:
    """Check the configs of a study.

    Args:
        study: the study.
        found: gets the mistakes; None to raise them.

    Raises:
        ConfigError: some have mistakes; the message lists all.
    """
    plan = plan_runs(runs_of(study), study.plugins, found)
    return replace(plan, differences=(*_untuned(study), *plan.differences))


def _untuned(study: Study) -> tuple[str, ...]:
    """Return a sentence if only some methods are tuned."""
    methods = [method for method in study.methods if method.baseline is None]
    without = [method.name for method in methods if method.tune is None]
    if not without or len(without) == len(methods):
        return ()
    return (f'the tuning differs: no trials ({", ".join(without)}), but others have some',)


def plan_runs(
    runs: Sequence[StudyRun], plugins: Sequence[str], found: FoundIn | None = None
) -> Plan:
    """Check the configs of runs.

    Args:
        runs: the runs.
        plugins: folders with plugins.
        found: gets the mistakes; None to raise them.

    Raises:
        ConfigError: some have mistakes; the message lists all.
    """
    prepare()
    known = FoundIn() if found is None else found
    stages: dict[str, tuple[tuple[str, int], ...]] = {}
    parts: dict[str, dict[str, Any]] = {}
    load_plugins(plugins)
    for run in runs:
        first = next(other for other in runs if other.label == run.label)
        if first is not run:
            if first.id in stages:
                stages[run.id] = tuple((f'{run.seed} {key}', n) for key, n in stages[first.id])
            continue
        mistakes = Mistakes()
        with mistakes.collect():
            config = settings_of(run)
            load_plugins(plugins, config.get('custom_imports') or ())
            init_default_scope(config.get('default_scope', DEFAULT_SCOPE))
            planned = expand(config.get('stages') or [], mistakes)
            _check_report(planned, mistakes)
            check_outline(config, planned, mistakes)
            mistakes.raise_all()
            epochs = epochs_of(planned, config)
            key = content_hash({'config': _without_stages(config), 'seed': run.seed})
            keys = []
            for entry, length in zip(planned, epochs, strict=True):
                key = stage_fingerprint(entry.config, key)
                keys.append((key, length))
            stages[run.id] = tuple(keys)
            if run.baseline is None:
                parts[run.label] = plain_parts(config, trained_epochs(planned, epochs))
        known.add(mistakes.found, run.label)
    if found is None:
        known.raise_all()
    return Plan(tuple(runs), stages, list_different_settings(_by_method(runs, parts)))


def _check_report(planned: Sequence[PlannedStage], mistakes: Mistakes) -> None:
    # A stage with a mistake is not in the plan, and may be this one.
    known = planned and not mistakes.found
    if known and not any(isinstance(entry.stage, Report) for entry in planned):
        mistakes.add("no stage writes the results; add dict(type='Report') as the last one")


def _listed(labels: Sequence[str]) -> str:
    """Return the names of what has the same mistake."""
    more = len(labels) - _MOST_LABELS
    return '; '.join(labels[:_MOST_LABELS]) + (f' and {more} more' if more > 0 else '')


def _without_stages(config: Any) -> dict[str, Any]:
    content = essential(plain(config.to_dict()))
    content.pop('stages', None)
    return content


def _by_method(
    runs: Sequence[StudyRun], parts: dict[str, dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Return the parts of each method's first config: swept keys and budgets differ on purpose."""
    found: dict[str, dict[str, Any]] = {}
    for run in runs:
        if run.label in parts:
            found.setdefault(run.method, parts[run.label])
    return found
