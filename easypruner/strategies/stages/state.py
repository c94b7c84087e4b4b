"""PruningState: the paths of a run's files. It is saved after each stage."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmengine.config import Config
from torch import nn

from easypruner.base.distributed import barrier, is_main
from easypruner.base.files import file_hash, write_json
from easypruner.base.json_fields import Field, has_own_hash, with_hash
from easypruner.base.stopping import Stop
from easypruner.errors import EasyPrunerError
from easypruner.graph import ChannelGraph, LayerHandler, Masks, NetworkRecord, Transform
from easypruner.report.result import BudgetResult, Row, read_budget
from easypruner.strategies.stages.forecast import Step

if TYPE_CHECKING:
    import pluggy
    from mmengine.runner import Runner
    from rich.console import Console

STATE = 'state.json'
ARCHITECTURE = 'architecture.json'


@dataclass(frozen=True)
class Run:
    """The values that stay the same during a run.

    Attributes:
        config: the config of the run, with its stages.
        name: the name of the config.
        work_dir: the folder for all files of the run.
        seed: the seed of every random choice.
        manager: calls the hooks of plugins.
        console: prints messages for the user.
        trace: makes the channel graph of a model, on the run's data.
        handlers: the layer handlers of plugins.
        transforms: the transform classes that plugins contribute.
        steps: the step of each stage, when it is known.
        launcher: ``'none'``, or what has started the processes of the run.
        verbose: whether the console shows MMEngine's log.
        stop: ends the run after SIGTERM.
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
    stop: Stop = field(default_factory=Stop)


@dataclass(frozen=True)
class Cut:
    """The files of a cut: the network before it, and the masks.

    Attributes:
        checkpoint: the weights right before the cut.
        masks: the masks of the cut.
        architecture: the record of the network before the cut; None for the original network.
        selected: the weights on which the masks were selected; None if a file contained the masks.
    """

    checkpoint: Path
    masks: Path
    architecture: Path | None
    selected: Path | None


@dataclass(frozen=True)
class PruningState:
    """The state of a run at one of its stages.

    Attributes:
        run: the values that stay the same during the run.
        index: the number of the current stage, from 0.
        stage: the folder of the current stage.
        checkpoint: the file of the weights; None only before the run has saved the initial ones.
        architecture: the file of the network's record, a
            :class:`easypruner.graph.NetworkRecord`; None for the original network.
        masks: the file of masks that are selected and not yet cut.
        selected: the file of the weights on which these masks were selected.
        unpruned: the file of the weights of the unpruned network, before any stage pushed it
            towards a cut; None until then.
        cuts: all cuts so far, in order.
        rows: the rows of the final table.
        budget: the limit of the budget, and its value for the network after the cut of the masks.
        uncut: the same for the network before this cut; None if no masks are selected.
        reference: the values that the budget's limit is relative to, while channels are removed in
            several cuts; None if the budget needs none. JSON can represent it.
        warnings: the warnings for the summary.
        seconds: the wall time of each finished stage.
        files: path of an artifact, relative to the work directory -> its hash when it was written.
        results: files of the current stage that the user takes away, likewise. They can be written
            again; '' stands for a file that may be edited.
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
    uncut: BudgetResult | None = None
    reference: Any = None
    warnings: tuple[str, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    results: Mapping[str, str] = field(default_factory=dict)

    @property
    def config(self) -> Config:
        """The run's config."""
        return self.run.config

    @property
    def work_dir(self) -> Path:
        """The run's work directory."""
        return self.run.work_dir

    def at(self, index: int, name: str) -> PruningState:
        """Return the state that a stage starts from, with a folder of its own."""
        folder = self.work_dir / f'{index:02d}_{name}'
        return replace(self, index=index, stage=folder, results={})

    def transformed(self, transform: Transform) -> PruningState:
        """Return the state after a transform of the network.

        This method writes the record of the network to the stage's folder, but not the weights.
        """
        record = self.record().then(transform)
        return replace(self, architecture=self.write(ARCHITECTURE, record.save))

    def write(self, name: str, save: Callable[[Path], object]) -> Path:
        """Let the main process write a file to the stage's folder; return its path.

        Args:
            name: the name of the file.
            save: a function that writes it to a path.
        """
        path = self.stage / name
        if is_main():
            save(path)
        barrier()
        return path

    def record(self) -> NetworkRecord:
        """Return the record that makes the current network from the original one.

        Raises:
            RecordError: the file is missing or damaged.
        """
        if self.architecture is None:
            return NetworkRecord()
        return NetworkRecord.load(self.architecture, self.run.transforms)

    def load_masks(self) -> Masks | None:
        """Return the masks that are selected and not yet cut; None if there are none."""
        return Masks.load(self.masks) if self.masks else None

    def warned(self, text: str) -> PruningState:
        """Return the state with another warning."""
        return replace(self, warnings=(*self.warnings, text))

    # Files

    def save(self, stage_fingerprint: str) -> None:
        """Write the state to the stage's folder, which marks the stage as finished.

        The state has the hash of each artifact. An artifact of an earlier stage keeps the hash that
        it had when it was written.
        """
        files = {
            name: self.files.get(name) or file_hash(self.work_dir / name)
            for name in self._artifacts()
        }
        content = replace(self, files=files)._content()
        write_json(self.stage / STATE, with_hash({'stage': stage_fingerprint, **content}))

    def check_files(self) -> None:
        """Raise EasyPrunerError unless all artifacts are what the stages before have written."""
        for name, expected in self.files.items():
            path = self.work_dir / name
            if path.is_file() and file_hash(path) == expected:
                continue
            found = 'has changed since it was written' if path.is_file() else 'is missing'
            raise EasyPrunerError(
                f'the file {str(path)!r} {found}, and stage {self.stage.name!r} needs it; delete '
                f'the folder {Path(name).parts[0]!r} and those of all later stages, and resume'
            )

    def with_results(self, files: Iterable[Path]) -> PruningState:
        """Return the state with the files of the stage that the user takes away."""
        results = {
            str(self._relative(file)): file_hash(file) if file.suffix in _HASHED else ''
            for file in files
        }
        return replace(self, results=results)

    @property
    def has_results(self) -> bool:
        """Whether all files that the user takes away are there, undamaged."""
        return all(
            (self.work_dir / name).is_file()
            and (not expected or file_hash(self.work_dir / name) == expected)
            for name, expected in self.results.items()
        )

    def resumed(self, stage_fingerprint: str) -> PruningState | None:
        """Return the state that the current stage has saved; None if it is not finished.

        Raises:
            EasyPrunerError: the state file cannot be read.
        """
        file = self.stage / STATE
        if not file.is_file():
            return None
        try:
            content = json.loads(file.read_text(encoding='utf-8'))
            if not has_own_hash(content):
                raise ValueError('its content does not have the hash in it')
            if content.pop('stage') != stage_fingerprint:
                raise ValueError('it belongs to another stage')
            return self._restored(content)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise EasyPrunerError(
                f'the state of a finished stage, {str(file)!r}, is damaged '
                f'({type(error).__name__}: {error}); delete the folder of this stage and of '
                'all later ones, and resume'
            ) from error

    def identity(self) -> dict[str, Any]:
        """Return what the result of the current stage depends on, as JSON can represent it."""
        content = {key: value for key, value in self._content().items() if key != 'seconds'}
        return {**content, 'folder': self.stage.name}

    def _content(self) -> dict[str, Any]:
        return {
            **{name: self._relative(getattr(self, name)) for name in _PATHS},
            'cuts': [
                {entry.name: self._relative(getattr(cut, entry.name)) for entry in fields(cut)}
                for cut in self.cuts
            ],
            'rows': [asdict(row) for row in self.rows],
            'budget': self.budget and asdict(self.budget),
            'uncut': self.uncut and asdict(self.uncut),
            'reference': self.reference,
            'warnings': list(self.warnings),
            'seconds': dict(self.seconds),
            'files': dict(self.files),
            'results': dict(self.results),
        }

    def _artifacts(self) -> list[str]:
        """Return the paths of all files that later stages may read."""
        cuts = [getattr(cut, entry.name) for cut in self.cuts for entry in fields(cut)]
        paths = [*(getattr(self, name) for name in _PATHS), *cuts]
        return sorted({str(self._relative(path)) for path in paths if path is not None})

    def _restored(self, content: Mapping[str, Any]) -> PruningState:
        return replace(
            self,
            **{name: self._absolute(content[name]) for name in _PATHS},
            cuts=tuple(
                Cut(**{name: self._absolute(path) for name, path in cut.items()})
                for cut in content['cuts']
            ),
            rows=tuple(Row(**row) for row in content['rows']),
            budget=_restored_budget(content['budget']),
            uncut=_restored_budget(content['uncut']),
            reference=content['reference'],
            warnings=tuple(content['warnings']),
            seconds=dict(content['seconds']),
            files=dict(content['files']),
            results=dict(content['results']),
        )

    def _relative(self, path: Path | None) -> str | None:
        # Relative paths allow the user to move the work directory.
        return None if path is None else str(path.relative_to(self.work_dir))

    def _absolute(self, path: str | None) -> Any:
        return None if path is None else self.work_dir / path

    # What stages share

    def configure(self, runner: Runner) -> None:
        """Let the plugins change a runner before it runs."""
        self.run.manager.hook.easypruner_configure_runner(runner=runner, state=self)

    def row(self, name: str, accuracy: float, graph: ChannelGraph) -> Row:
        """Return a row of the final table for the current weights."""
        assert self.checkpoint is not None
        cost = graph.cost()
        return Row(name, accuracy, cost.macs, cost.params, self.checkpoint.stat().st_size)


def _restored_budget(content: Any) -> BudgetResult | None:
    return read_budget(Field(content, STATE)) if content else None


_HASHED = ('.json', '.pth', '.safetensors')
_PATHS = ('checkpoint', 'architecture', 'masks', 'selected', 'unpruned')
