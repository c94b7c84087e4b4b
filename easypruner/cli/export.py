"""The command ``easypruner export``: writes a network for runtimes, checked against torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from easypruner.cli.analyze import parse_shape
from easypruner.cli.options import PluginArguments, flag, option, positional, repeated

DEFAULT_RUNTIME = 'OnnxRuntime'


@dataclass(frozen=True, kw_only=True)
class NetworkArguments(PluginArguments):
    """The arguments of commands that take networks to deploy."""

    input_shape: tuple[int, ...] | None = option(
        'shape of the input; default: the usual shape of the model, or that of the first '
        'validation sample of the config',
        type=parse_shape,
        metavar='N,C,H,W',
    )
    model: str | None = option(
        'the network that a record was made on: a model, a config or FILE.py:FUNCTION',
        metavar='NAME',
    )
    runtime: Sequence[str] = repeated('a runtime; default: OnnxRuntime', 'NAME')


@dataclass(frozen=True, kw_only=True)
class ExportArguments(NetworkArguments):
    """The arguments of ``easypruner export``."""

    subject: str = positional(
        'folder of a finished run; record (architecture.json); config; model of torchvision, '
        'mmpretrain or timm; or FILE.py:FUNCTION, which returns a network, or it and its inputs',
        metavar='WORK_DIR|RECORD|CONFIG|MODEL',
    )
    weights: str | None = option(
        'checkpoint of the network, in place of that of the run', metavar='CHECKPOINT'
    )
    out: str = option('folder to write; default: export', default='export', metavar='DIR')
    no_unpruned: bool = flag('do not write the unpruned network beside the pruned one')
    overwrite: bool = flag('replace an earlier export')


def export(arguments: ExportArguments) -> int:
    """Write a network for runtimes, and print what was written.

    Raises:
        EasyPrunerError: there is no such network or runtime, the runtime cannot express the
            network, its outputs differ from torch's, or the folder is in use.
    """
    # These modules import torch and MMEngine, and --help has to be fast.
    from easypruner.cli.find_pruned import find_pruned
    from easypruner.report.text import print_lines, report_console
    from easypruner.runtimes.exporting import check_folder, export_network
    from easypruner.slimming.deploying import runtimes_of

    folder = Path(arguments.out)
    check_folder(folder, arguments.overwrite)
    arguments.load_plugins()
    runtimes = runtimes_of(arguments.runtime or DEFAULT_RUNTIME)
    found = find_pruned(
        arguments.subject, arguments.input_shape, arguments, arguments.model, arguments.weights
    )
    written = export_network(
        found.subject.model,
        found.subject.inputs,
        folder,
        runtimes,
        unpruned=None if arguments.no_unpruned else found.unpruned,
        overwrite=arguments.overwrite,
    )
    console = report_console()
    print_lines(console, f'{found.subject.name}, in {folder}', written.lines())
    print_lines(console, 'Notes', found.notes, style='yellow')
    return 0
