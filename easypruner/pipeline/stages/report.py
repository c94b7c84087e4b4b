"""The stages Evaluate and Report: they measure the network, and write the results."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial, reduce
from pathlib import Path
from typing import Any

from mmengine.registry import MODELS

from easypruner.analysis.summary import aggregate
from easypruner.base.distributed import is_main
from easypruner.base.files import write_whole, write_with
from easypruner.base.modules import copy_of
from easypruner.base.versions import versions_of
from easypruner.engine.averaging import averaging_hooks
from easypruner.engine.config import DEFAULT_SCOPE, model_settings
from easypruner.engine.pretrained import load_weights, weights_source
from easypruner.engine.runner import RUNNER_KEYS
from easypruner.errors import EasyPrunerError
from easypruner.graph import ChannelGraph, Masks
from easypruner.pipeline.fingerprint import (
    PACKAGES,
    fingerprint,
    method_fingerprint,
    part_fingerprints,
)
from easypruner.pipeline.stages.common import loaded_runner, stage_runner, with_row, with_weights
from easypruner.pipeline.stages.config_text import beside, config_text
from easypruner.pipeline.stages.networks import current_network, unpruned_network
from easypruner.pipeline.stages.times import measure_times
from easypruner.pipeline.work_dir import INITIAL
from easypruner.plugins.handlers import find_origins
from easypruner.report.details import FrozenChannels, RunDetails
from easypruner.report.result import BASELINE, NetworkCost, RunResult
from easypruner.report.run_report import report_run
from easypruner.report.scales import LayerChannels, Scales, gather_scales, joined, layer_channels
from easypruner.report.text import format_share
from easypruner.runtimes import Runtime
from easypruner.strategies import Stage
from easypruner.strategies.stages.forecast import Forecast, Step, no_rows, trained_epochs
from easypruner.strategies.stages.stage import RowStage
from easypruner.strategies.stages.state import Cut, PruningState


class Evaluate(RowStage):
    """Measures the accuracy on the validation data and the cost of the network.

    Use when:
        A run starts from a trained network (``checkpoint``), or the table needs a row that no other
        stage adds.

    Fails when:
        The checkpoint does not fit the current network; the error names the tensor.

    Values:
        ``dict(type='Evaluate', checkpoint='trained.pth')`` as the first stage, in place of a
        ``Train`` stage.

    Args:
        row: the name of the row in the final table; None for no row.
        checkpoint: the weights to continue from, as a path, or as a dict with the fields that
            ``load_from`` takes; None for the current weights.
        name: the name of the stage.
    """

    def __init__(
        self,
        row: str | None = 'baseline',
        checkpoint: str | Mapping[str, Any] | None = None,
        name: str = 'evaluate',
    ) -> None:
        super().__init__(row, name)
        given = checkpoint is not None
        self.checkpoint = weights_source(checkpoint, 'Evaluate') if given else None

    def check(self) -> None:
        if self.checkpoint is not None:
            self.checkpoint.read()

    def forecast(self, before: Forecast) -> Forecast:
        if self.checkpoint is not None and not before.cut:
            load_weights(copy_of(before.graph.model), self.checkpoint)
        return replace(before, step=Step(loads=self.checkpoint is not None))

    def run(self, state: PruningState) -> PruningState:
        """Evaluate. A checkpoint is copied into the run."""
        if self.checkpoint is not None:
            runner = stage_runner(state)
            load_weights(runner.plain_model, self.checkpoint)
            state = with_weights(state, runner.plain_model)
        else:
            runner = loaded_runner(state)
        return with_row(state, self.row, runner, state.run.trace(runner.plain_model))

    def plan(self, state: PruningState) -> str:
        return f'evaluate {self.checkpoint.checkpoint}' if self.checkpoint else 'evaluate'


class Report(Stage):
    """Writes the results of a run: weights, record, masks, config, summary and pictures.

    Use when:
        Always, as the last stage.

    Fails when:
        No stage before it has added a row to the final table.

    Values:
        No arguments are needed. ``runtimes=['OpenVINO']`` for the runtime of the deployment.

    Args:
        runtimes: the runtimes in which the original network and the final one are timed, with one
            thread and one sample; by default torch, and ONNX Runtime where it is installed. An
            empty list is for none.
        name: the name of the stage.
    """

    def __init__(self, runtimes: Sequence[Runtime] | None = None, name: str = 'report') -> None:
        super().__init__(name)
        self.runtimes = runtimes

    def check(self) -> None:
        for runtime in self.runtimes or ():
            runtime.check()

    def forecast(self, before: Forecast) -> Forecast:
        before.check_rows('Report')
        return before

    def run(self, state: PruningState) -> PruningState:
        """Write everything and print the table."""
        if not is_main():
            return state
        if not state.rows or state.checkpoint is None:
            raise EasyPrunerError(no_rows('Report'))
        original = state.run.trace(MODELS.build(model_settings(state.config)))
        files = _write_results(state)
        # These warnings are not those of later stages.
        reported = with_report_warnings(state, original.cost().macs)
        result = replace(_result(reported), original=_cost(state, original))
        scales: tuple[Scales, Scales] | None = None
        layers: tuple[LayerChannels, ...] = ()
        if state.cuts:
            scales, after = _scales(state)
            result = replace(result, scales=after.removed_stats())
            layers = layer_channels(original, all_masks(state.cuts))
        times = measure_times(
            unpruned_network(state),
            current_network(state),
            original.example_inputs,
            self.runtimes,
        )
        frozen = tuple(
            FrozenChannels(row.reason, row.channels, row.example)
            for row in aggregate(original.frozen)
        )
        files.append(RunDetails.of(layers, scales, frozen).save(state.work_dir))
        written = report_run(
            result,
            scales=scales,
            layers=layers,
            times=times,
            files=files,
            manager=state.run.manager,
            console=state.run.console,
        )
        return state.with_results([*files, *written])

    def plan(self, state: PruningState) -> str:
        return 'write the summary and the pictures'


def _write_results(state: PruningState) -> list[Path]:
    """Write the files of the result to the work directory; return their paths."""
    assert state.checkpoint is not None
    folder = state.work_dir
    copies = {folder / 'pruned.pth': state.checkpoint}
    if state.architecture is not None:
        copies[folder / 'architecture.json'] = state.architecture
    for target, source in copies.items():
        write_with(target, partial(shutil.copyfile, source))
    files = list(copies)
    if state.cuts:
        files.append(folder / 'masks.safetensors')
        all_masks(state.cuts).save(files[-1])
    files.append(folder / 'pruned_config.py')
    write_whole(files[-1], _pruned_config(state))
    return files


def _pruned_config(state: PruningState) -> str:
    """Return a complete MMEngine config of the result, with paths relative to its folder."""
    config = state.config
    content: dict[str, Any] = {
        key: value
        for key, value in config.to_dict().items()
        if key in RUNNER_KEYS or key == 'custom_imports'
    }
    averaging = averaging_hooks(content)
    if averaging:
        # They expect averages in the file of the weights.
        content['custom_hooks'] = [h for h in content['custom_hooks'] if h not in averaging]
    content.setdefault('default_scope', config.get('default_scope', DEFAULT_SCOPE))
    if state.architecture is not None:
        plugins = find_origins(type(transform) for transform in state.record().transforms)
        content['model'] = dict(
            type='easypruner.PrunedModel',
            model=content['model'],
            architecture=beside('architecture.json'),
            **({'plugins': plugins} if plugins else {}),
        )
    content['load_from'] = beside('pruned.pth')
    content['work_dir'] = beside('evaluation')
    for kind in ('dataloader', 'evaluator', 'cfg'):
        content.setdefault(f'test_{kind}', content.get(f'val_{kind}'))
    return config_text(content, state.work_dir)


def _cost(state: PruningState, original: ChannelGraph) -> NetworkCost:
    """Return the cost of the original network, with the size of its initial weights."""
    cost = original.cost()
    file = state.work_dir / INITIAL
    known = file if file.is_file() else state.checkpoint
    assert known is not None, 'a row needs a checkpoint'
    return NetworkCost(cost.macs, cost.params, known.stat().st_size)


def with_report_warnings(state: PruningState, macs: int) -> PruningState:
    """Return the state, with warnings about what the table of the run cannot show.

    Args:
        state: the state of the run; it has a row.
        macs: the multiply-adds of the original network.
    """
    if state.masks is not None:
        state = state.warned(
            'report: the selected masks are not cut, so the saved network still has their '
            'channels; put a Prune stage before Report'
        )
    first = next((row for row in state.rows if row.name == BASELINE), state.rows[0])
    if first.macs < macs:
        state = state.warned(
            f'report: the accuracy of the original network is not known, so changes refer to the '
            f'row {first.name!r}, a network with {format_share(first.macs, macs)} of its MACs; '
            "give a stage before the first cut a row, as in dict(type='Evaluate', row='baseline')"
        )
    return state


def _result(state: PruningState) -> RunResult:
    epochs = sum(step.epochs for step in state.run.steps)
    trained = trained_epochs(state.run.steps)
    return RunResult(
        name=state.run.name,
        work_dir=state.work_dir,
        rows=state.rows,
        budget=state.budget if state.masks is None else state.uncut,
        seed=state.run.seed,
        config_hash=fingerprint(state.config),
        versions={**versions_of(*PACKAGES), 'python': platform.python_version()},
        seconds=state.seconds,
        warnings=state.warnings,
        parts=part_fingerprints(state.config, trained),
        method_hash=method_fingerprint(state.config),
        epochs=epochs,
        trained_epochs=trained,
    )


def all_masks(cuts: Sequence[Cut]) -> Masks:
    """Return the combined masks of all cuts, over the units of the original network."""
    return reduce(Masks.then, (Masks.load(cut.masks) for cut in cuts), Masks())


def _scales(state: PruningState) -> tuple[tuple[Scales, Scales] | None, Scales]:
    """Return the scales at the selection of the masks, if known, and at the cuts.

    Removed scales are those of all cuts, and kept scales those of the last one.
    """
    before, after = [], []
    for cut in state.cuts:
        graph, masks = _before_cut(state, cut)
        after.append(gather_scales(graph, masks))
        if cut.selected is not None:
            # A state dict may have other names than the parameters, so the model reads it.
            load_weights(graph.model, cut.selected)
            before.append(gather_scales(graph, masks))
    at_cuts = joined(after)
    return (joined(before), at_cuts) if len(before) == len(after) else None, at_cuts


def _before_cut(state: PruningState, cut: Cut) -> tuple[ChannelGraph, Masks]:
    """Return the graph of the network right before a cut, with its weights, and the masks."""
    record = replace(state, architecture=cut.architecture).record()
    model = record.apply(MODELS.build(model_settings(state.config)), state.run.handlers)
    load_weights(model, cut.checkpoint)
    return state.run.trace(model), Masks.load(cut.masks)
