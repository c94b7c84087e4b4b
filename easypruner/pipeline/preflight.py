"""Before a run: its stages are built, its whole config is checked, its plan is printed."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mmengine.config import Config
from rich.console import Console

from easypruner.engine.averaging import averaging_warnings
from easypruner.engine.config import building
from easypruner.engine.config_keys import given_keys, unchecked_keys
from easypruner.engine.late_settings import check_late_settings, ignored_warnings
from easypruner.engine.pretrained import build_initial_model, starts_trained
from easypruner.engine.runner import RUNNER_KEYS
from easypruner.errors import Mistakes
from easypruner.graph import ChannelGraph
from easypruner.pipeline.classes import check_classes
from easypruner.pipeline.data_check import build_loader, check_evaluator
from easypruner.pipeline.one_batch import read_samples, try_one_batch
from easypruner.plugins.registry import STAGES, build
from easypruner.report.text import format_count, literal_text, make_table, print_lines
from easypruner.runtimes.widths import Target
from easypruner.strategies import Stage
from easypruner.strategies.stages.forecast import Forecast, Step, pushes_last, unpruned_before
from easypruner.strategies.stages.stage import RowStage
from easypruner.strategies.stages.state import PruningState, Run


@dataclass(frozen=True)
class PlannedStage:
    """A stage of a run, with the config that it was built from.

    Attributes:
        stage: the stage.
        config: the config of this stage.
        location: the path of this config in the run's config, such as ``stages[1]``; for messages.
    """

    stage: Stage
    config: Mapping[str, Any]
    location: str


def expand(stages: Any, mistakes: Mistakes, location: str = 'stages') -> list[PlannedStage]:
    """Build a list of stages, and replace each stage that stands for several by these.

    Args:
        stages: the list of a config, ``[dict(type=...), ...]``.
        mistakes: gets the mistakes in the stages; stages with mistakes are left out of the result.
        location: the path of the list in the config.
    """
    if not isinstance(stages, list | tuple):
        mistakes.add(f'expected a list of stages, got {stages!r}', location)
        return []
    return [
        planned
        for number, config in enumerate(stages)
        for planned in _built(config, f'{location}[{number}]', mistakes)
    ]


def _built(config: Any, location: str, mistakes: Mistakes) -> Iterator[PlannedStage]:
    """Yield the stage of a config, or the stages that it stands for."""
    with mistakes.collect():
        stage: Stage = build(STAGES, config, path=location)
        inner = stage.expand()
        if inner is None:
            yield PlannedStage(stage, config, location)
        for each in inner or ():
            name = each.get('name') or each.get('type')
            yield from _built(each, f'{location} ({name})', mistakes)


OWN_KEYS = frozenset({'stages', 'seed', 'graph'})
ALSO_KNOWN = frozenset({'custom_imports', 'env_cfg', 'default_scope', 'data_preprocessor',
                         'auto_scale_lr', 'find_unused_parameters', 'sync_bn'})  # fmt: skip
_LOADERS = ('train_dataloader', 'val_dataloader')
_DICTS = ('model', *_LOADERS)
_NEEDED = {
    'model': "model=dict(type='ImageClassifier', ...)",
    **{name: f'{name}=dict(batch_size=64, dataset=dict(type=...), ...)' for name in _LOADERS},
    'val_evaluator': "val_evaluator=dict(type='Accuracy')",
    'val_cfg': 'val_cfg=dict()',
}
"""Key that a config needs -> an example."""
_NOT_READ = {
    'runner_type': 'stages have a Runner of their own; remove the key, and let a hook of '
    'custom_hooks do what yours adds',
    'strategy': 'stages do not split the weights over processes; remove the key',
}
"""Key of MMEngine's tools that a run cannot follow -> why, and what to do."""
_TYPO = 0.8


_NOT_CUT = ('masks are selected but not cut, so the network keeps all channels; add a Prune stage',)


@dataclass(frozen=True)
class Preflight:
    """The result of the checks, which the plan and the run use.

    Attributes:
        stages: the stages of the run.
        steps: the step of each stage.
        graph: the channel graph of the original model, with its initial weights.
        warnings: warnings about the run as a whole.
        loaded: a line for each checkpoint that the model starts with.
    """

    stages: Sequence[PlannedStage]
    steps: tuple[Step, ...]
    graph: ChannelGraph
    warnings: tuple[str, ...] = ()
    loaded: tuple[str, ...] = ()


def check(run: Run, stages: Sequence[PlannedStage], mistakes: Mistakes) -> Preflight:
    """Check a whole config.

    Args:
        run: the run, with its config.
        stages: the stages of the config.
        mistakes: the mistakes that were found when the stages were built.

    Raises:
        ConfigError: the config has mistakes; the message has all of them, each with its path.
    """
    config = run.config
    check_outline(config, stages, mistakes)
    samples = [
        read_samples(name, build_loader(config, name, mistakes), run.seed, mistakes)
        for name in _LOADERS
    ]
    validates = check_evaluator(config, mistakes)
    model, loaded = build_initial_model(config, mistakes)
    graph, found = None, [each for each in samples if each is not None]
    if model is not None:
        for name, sample in zip(_LOADERS, samples, strict=True):
            if sample is not None:
                check_classes(sample.loader.dataset, name, model, mistakes)
    if model is not None and len(found) == len(samples):
        with mistakes.collect('model'), building():
            graph = run.trace(model)
    steps: tuple[Step, ...] = ()
    end = None
    if graph is not None:
        if not mistakes.found:
            start = Forecast(config, run.seed, graph, len(found[0].loader))
            steps, end = _forecast(start, stages, mistakes)
        if config.get('val_evaluator') is not None:
            built = [planned.stage for planned in stages]
            try_one_batch(run, built, graph, found, mistakes, validates)
    mistakes.raise_all()
    assert graph is not None, 'only a mistake prevents a graph'
    found_in_run = (*averaging_warnings(config), *ignored_warnings(config))
    if end is not None and end.masks:
        found_in_run += _NOT_CUT
    return Preflight(stages, steps, graph, found_in_run, tuple(loaded))


def check_outline(config: Config, stages: Sequence[PlannedStage], mistakes: Mistakes) -> None:
    """Check the keys of a config and its stages, without its model and data.

    Args:
        config: the config.
        stages: the stages of the config.
        mistakes: gets the mistakes; has those that were found when the stages were built.
    """
    if not stages and not mistakes.found:
        mistakes.add('the config has no stages; expected stages = [dict(type=...), ...]')
    _check_keys(config, mistakes)
    check_late_settings(config, mistakes)
    _check_stages(stages, mistakes)


def _forecast(
    forecast: Forecast, stages: Sequence[PlannedStage], mistakes: Mistakes
) -> tuple[tuple[Step, ...], Forecast]:
    """Return the step of each stage, up to the first one with a mistake, and the last forecast."""
    steps: list[Step] = []
    known = mistakes.found
    for planned in stages:
        with mistakes.collect(planned.location):
            start = replace(forecast, step=Step(), earlier=tuple(steps))
            forecast = planned.stage.forecast(start)
            forecast = replace(forecast, rows=start.rows or _may_add_row(planned.stage))
        # After a mistake the forecast for later stages is unknown, so they cannot be checked.
        if mistakes.found != known:
            break
        steps.append(forecast.step)
    return tuple(steps), forecast


def _may_add_row(stage: Stage) -> bool:
    """Return whether a stage may add a row; a stage of a plugin may do so in its own way."""
    if isinstance(stage, RowStage):
        return stage.row is not None
    return not type(stage).__module__.startswith('easypruner.')


def _check_keys(config: Config, mistakes: Mistakes) -> None:
    known = RUNNER_KEYS | OWN_KEYS | ALSO_KNOWN
    content = config.to_dict()
    given = given_keys(config) - known
    for key in [key for key in content if key not in (known | unchecked_keys(config)) - given]:
        value = content[key]
        close = difflib.get_close_matches(key, known, n=1, cutoff=_TYPO)
        if close:
            mistakes.add(f'unknown key {key!r}; did you mean {close[0]!r}?')
        elif key in given:
            mistakes.add(
                f'unknown key {key!r}: if it is a variable of the config, it has been used when an '
                'option changes it, so nothing would change; change the keys that get its value'
            )
        elif key in _NOT_READ:
            mistakes.add(_NOT_READ[key], key)
        elif not _used(value, {k: v for k, v in content.items() if k != key}):
            mistakes.add(
                f'unknown key {key!r}, and no other key of the config uses its value; expected an '
                'argument of an MMEngine Runner or one of '
                + ', '.join(sorted(OWN_KEYS | ALSO_KNOWN))
            )
    for key, example in _NEEDED.items():
        if key not in content or (content[key] is None and key != 'val_cfg'):
            mistakes.add(f'the config has no {key}; add it, as in {example}')
        elif key in _DICTS and not isinstance(content[key], Mapping):
            mistakes.add(f'expected a dict, got {content[key]!r}', key)


def _used(value: Any, content: Any) -> bool:
    """Return whether the value of a helper variable occurs somewhere in the config."""
    if type(content) is type(value) and content == value:
        return True
    items = content.values() if isinstance(content, Mapping) else content
    return isinstance(content, Mapping | list | tuple) and any(_used(value, i) for i in items)


def _check_stages(stages: Sequence[PlannedStage], mistakes: Mistakes) -> None:
    """Add mistakes for stages that miss something, and for two rows of the same name."""
    taken: dict[str, str] = {}
    for planned in stages:
        with mistakes.collect(planned.location):
            planned.stage.check()
        row = getattr(planned.stage, 'row', None)
        if not isinstance(row, str):
            continue
        if row in taken:
            text = f'row={row!r} is also the row of {taken[row]}; choose another name'
            mistakes.add(text, planned.location)
        taken.setdefault(row, planned.location)


def print_plan(console: Console, state: PruningState, preflight: Preflight) -> None:
    """Print a description of each stage, the reach of its penalty, and warnings."""
    graph = preflight.graph
    cost = graph.cost()
    title = (
        f'{state.run.name}: {type(graph.model).__name__}, {format_count(cost.macs)} MACs, '
        f'{format_count(cost.params)} params, {len(graph.groups)} groups'
    )
    rows = []
    for number, (planned, step) in enumerate(zip(preflight.stages, preflight.steps, strict=True)):
        stage = planned.stage
        reach = '' if step.push is None else step.push.reach
        rows.append((str(number), stage.name, stage.plan(state), reach))
    console.print(literal_text(title), style='bold', soft_wrap=True)
    console.print(make_table('', ('', 'stage', 'does', 'reach'), rows, left=4))
    teacher = unpruned_before(preflight.steps, starts_trained(state.config))
    if teacher is not None and any(step.taught for step in preflight.steps):
        name = preflight.stages[teacher].stage.name
        console.print(f'teacher: the network before {literal_text(name)}', highlight=False)
    if isinstance(graph.target, Target):
        console.print(literal_text(graph.target.describe()), highlight=False, soft_wrap=True)
    for line in preflight.loaded:
        console.print(f'weights: {literal_text(line)}', highlight=False, soft_wrap=True)
    console.print(f'work directory: {literal_text(str(state.work_dir))}', highlight=False)
    print_lines(console, 'Warnings', list_warnings(preflight), style='yellow')


def list_warnings(preflight: Preflight) -> list[str]:
    """Return the warnings about a run and its stages."""
    warnings = [*preflight.warnings]
    for number, (planned, step) in enumerate(zip(preflight.stages, preflight.steps, strict=True)):
        if step.push is not None:
            weak = step.push.weak if pushes_last(preflight.steps, number) else ''
            found = filter(None, [*step.push.warnings, weak])
            warnings += [f'{planned.stage.name}: {warning}' for warning in found]
    return warnings
