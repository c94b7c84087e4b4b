"""The stage Export: it writes the network of a run for runtimes."""

from __future__ import annotations

from collections.abc import Sequence

from easypruner.base.checks import check_flag, refuse
from easypruner.base.distributed import is_main
from easypruner.errors import ConfigError
from easypruner.pipeline.stages.networks import current_network, unpruned_network
from easypruner.plugins.registry import RUNTIMES
from easypruner.report.text import print_lines
from easypruner.runtimes import Runtime
from easypruner.runtimes.candidates import has_files
from easypruner.runtimes.exporting import export_network
from easypruner.strategies import Stage
from easypruner.strategies.stages.state import PruningState


class Export(Stage):
    """Writes the network for runtimes, checked against torch, and its weights as safetensors.

    The unpruned network is written beside it. Everything is in the folder ``export`` of the work
    directory.

    Use when:
        The network of a run goes to a runtime such as ONNX Runtime or OpenVINO.

    Fails when:
        A runtime cannot express the network, or computes something else: the error is the
        runtime's reason, and nothing is written.

    Values:
        ``dict(type='Export', runtimes=['OnnxRuntime'])`` before or after ``Report``.

    Args:
        runtimes: the runtimes, by name or as dicts; by default the one of reports that has files,
            which is ONNX Runtime.
        unpruned: whether the unpruned network is written as well, for comparison.
        name: the name of the stage, and of the folder.
    """

    def __init__(
        self,
        runtimes: Sequence[Runtime] | None = None,
        unpruned: bool = True,
        name: str = 'export',
    ) -> None:
        super().__init__(name)
        if runtimes is not None and not runtimes:
            refuse(runtimes, 'runtimes', 'Export', "a list of runtimes, such as ['OnnxRuntime']")
        self.given = runtimes
        self.unpruned = check_flag(unpruned, 'unpruned', 'Export')

    @property
    def runtimes(self) -> list[Runtime]:
        """The runtimes."""
        if self.given is not None:
            return list(self.given)
        # Other plugins may not be loaded yet when a stage is built.
        reported = [cls() for cls in RUNTIMES.classes.values() if cls.reported]
        return [runtime for runtime in reported if has_files(runtime)]

    def check(self) -> None:
        if not self.runtimes:
            raise ConfigError("Export has no runtime; give some, such as runtimes=['OnnxRuntime']")
        for runtime in self.runtimes:
            runtime.check()

    def run(self, state: PruningState) -> PruningState:
        """Write everything, and print the sizes and errors."""
        if not is_main():
            return state
        unpruned = unpruned_network(state) if self.unpruned and state.cuts else None
        network = current_network(state)
        written = export_network(
            network,
            state.run.trace(network).example_inputs,
            state.work_dir / self.name,
            self.runtimes,
            unpruned=unpruned,
            overwrite=True,
        )
        print_lines(state.run.console, 'Exported', written.lines())
        files = [file for file in sorted(written.folder.rglob('*')) if file.is_file()]
        return state.with_results(files)

    def plan(self, state: PruningState) -> str:
        return f'export for {", ".join(runtime.name for runtime in self.runtimes)}'
