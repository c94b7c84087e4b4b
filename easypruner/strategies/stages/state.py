"""The state of a run: where its artifacts lie. It passes from stage to stage through files."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmengine.config import Config
from torch import nn

from easypruner.base.distributed import barrier, is_main
from easypruner.base.files import write_json
from easypruner.errors import EasyPrunerError
from easypruner.graph import ChannelGraph, NetworkRecord, Transform
from easypruner.graph.cutting.layer_handler import LayerHandler
from easypruner.graph.masks import Masks
from easypruner.report.result import BudgetResult, Row
from easypruner.strategies.stages.forecast import Step

if TYPE_CHECKING:
    import pluggy
    from mmengine.runner import Runner
    from rich.console import Console

STATE = 'state.json'
ARCHITECTURE = 'architecture.json'


@dataclass(frozen=True)
class Run:
    """What stays the same over a run.

    Attributes:
        config: of the run, stages included.
        name: of the config.
        work_dir: where everything is written.
        seed: for every random choice.
        manager: calls the hooks of plugins.
        console: for people to read.
        trace: makes the channel graph of a model on the run's data.
        handlers: of layers, those of plugins.
        transforms: the classes of transforms that plugins contribute.
        steps: what each stage does, once that is known.
        launcher: ``'none'`` or ``'pytorch'``.
        verbose: show MMEngine's log on the console.
    """

    config: Config
    name: str
    work_dir: Path
    seed: int
    manager: pluggy.PluginManager
    console: Console
    trace: Callable[[nn.Module], ChannelGraph]
    handlers: tuple[LayerHandler, ...] = ()
    transforms: tuple[type[Transform], ...] = ()
    steps: tuple[Step, ...] = ()
    launcher: str = 'none'
    verbose: bool = False


@dataclass(frozen=True)
class Cut:
    """What a cut was made on: the network before it, and the masks.

    Attributes:
        checkpoint: weights right before the cut.
        masks: that were cut.
        architecture: record of the network before the cut; None for the original.
        selected: weights on which the masks were selected; None where they came from a file.
    """

    checkpoint: Path
    masks: Path
    architecture: Path | None
    selected: Path | None


@dataclass(frozen=True)
class PruningState:
    """Where a run stands.

    Attributes:
        run: what stays the same over the run.
        index: of the stage at hand, from 0.
        stage: folder of the stage at hand.
        checkpoint: weights; None only before the run has written its initial ones.
        architecture: record of the network, as of :class:`easypruner.graph.NetworkRecord`; None
            while it is the original.
        masks: file of masks that are selected and not cut yet.
        selected: weights on which these were selected.
        unpruned: weights of the unpruned network, before anything pushed it towards a cut; None
            until then.
        cuts: that were made, in order.
        rows: of the final table.
        budget: what was asked and delivered.
        reference: what the budget is a share of, while channels are removed in several steps; None
            where nothing need be known. What JSON can hold.
        warnings: for the reader of the summary.
        seconds: wall time of each finished stage.
    """

    run: Run
    index: int = 0
    stage: Path = Path()
    checkpoint: Path | None = None
    architecture: Path | None = None
    masks: Path | None = None
    selected: Path | None = None
    unpruned: Path | None = None
    cuts: tuple[Cut, ...] = ()
    rows: tuple[Row, ...] = ()
    budget: BudgetResult | None = None
    reference: Any = None
    warnings: tuple[str, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def config(self) -> Config:
        """The run's config."""
        return self.run.config

    @property
    def work_dir(self) -> Path:
        """The run's work directory."""
        return self.run.work_dir

    def at(self, index: int, name: str) -> PruningState:
        """Return the state a stage starts from, with a folder of its own."""
        return replace(self, index=index, stage=self.work_dir / f'{index:02d}_{name}')

    def transformed(self, transform: Transform) -> PruningState:
        """Return the state of a network that a stage has transformed.

        The record of the network is written into the stage's folder; the weights are not.
        """
        path = self.stage / ARCHITECTURE
        if is_main():
            self.record().then(transform).save(path)
        barrier()
        return replace(self, architecture=path)

    def record(self) -> NetworkRecord:
        """Return what makes the network at hand out of the original.

        Raises:
            RecordError: its file is missing or damaged.
        """
        if self.architecture is None:
            return NetworkRecord()
        return NetworkRecord.load(self.architecture, self.run.transforms)

    def load_masks(self) -> Masks | None:
        """Return the masks that are selected and not cut yet."""
        return Masks.load(self.masks) if self.masks else None

    def warned(self, text: str) -> PruningState:
        """Return the state with a warning more."""
        return replace(self, warnings=(*self.warnings, text))

    # Files

    def save(self, stage_fingerprint: str) -> None:
        """Write the state into the stage's folder: the sign that the stage is finished."""
        write_json(self.stage / STATE, {'stage': stage_fingerprint, **self._content()})

    def resumed(self, stage_fingerprint: str) -> PruningState | None:
        """Return the state that the stage at hand left behind; None if it is not finished.

        Raises:
            EasyPrunerError: a state file that cannot be read.
        """
        file = self.stage / STATE
        if not file.is_file():
            return None
        try:
            content = json.loads(file.read_text(encoding='utf-8'))
            if content.pop('stage') != stage_fingerprint:
                raise ValueError('it belongs to another stage')
            return self._filled(content)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise EasyPrunerError(
                f'the state of a finished stage, {str(file)!r}, is damaged '
                f'({type(error).__name__}: {error}); delete the folder of this stage and of '
                'all later ones, and resume'
            ) from error

    def _content(self) -> dict[str, Any]:
        return {
            **{name: self._relative(getattr(self, name)) for name in _PATHS},
            'cuts': [
                {entry.name: self._relative(getattr(cut, entry.name)) for entry in fields(cut)}
                for cut in self.cuts
            ],
            'rows': [asdict(row) for row in self.rows],
            'budget': self.budget and asdict(self.budget),
            'reference': self.reference,
            'warnings': list(self.warnings),
            'seconds': dict(self.seconds),
        }

    def _filled(self, content: Mapping[str, Any]) -> PruningState:
        return replace(
            self,
            **{name: self._absolute(content[name]) for name in _PATHS},
            cuts=tuple(
                Cut(**{name: self._absolute(path) for name, path in cut.items()})
                for cut in content['cuts']
            ),
            rows=tuple(Row(**row) for row in content['rows']),
            budget=BudgetResult.from_dict(content['budget']) if content['budget'] else None,
            reference=content['reference'],
            warnings=tuple(content['warnings']),
            seconds=dict(content['seconds']),
        )

    def _relative(self, path: Path | None) -> str | None:
        # Relative, so that a work directory can be moved.
        return None if path is None else str(path.relative_to(self.work_dir))

    def _absolute(self, path: str | None) -> Any:
        return None if path is None else self.work_dir / path

    # What stages share

    def configure(self, runner: Runner) -> None:
        """Let the plugins change a runner before it runs."""
        self.run.manager.hook.easypruner_configure_runner(runner=runner, state=self)

    def row(self, name: str, accuracy: float, graph: ChannelGraph) -> Row:
        """Return a row of the final table for the weights at hand."""
        assert self.checkpoint is not None
        cost = graph.cost()
        return Row(name, accuracy, cost.macs, cost.params, self.checkpoint.stat().st_size)


_PATHS = ('checkpoint', 'architecture', 'masks', 'selected', 'unpruned')
