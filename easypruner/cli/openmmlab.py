"""The options of ``easypruner prune`` that the training tools of OpenMMLab have as well."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from easypruner.base.launchers import LAUNCHERS
from easypruner.cli.options import PluginArguments, flag, option
from easypruner.errors import ConfigError

if TYPE_CHECKING:
    from mmengine.config import Config

AUTO = 'auto'
_LOADERS = ('train_dataloader', 'val_dataloader')
_OF_VALIDATION = ('val_interval', 'val_begin', 'dynamic_intervals')


@dataclass(frozen=True, kw_only=True)
class OpenMMLabArguments(PluginArguments):
    """The arguments that OpenMMLab's ``tools/train.py`` has as well."""

    work_dir: str | None = option(
        "folder of the run; default: the config's work_dir, or work_dirs/NAME_seedSEED",
        metavar='DIR',
    )
    resume: str | None = option(
        'continue at the first unfinished stage: of the run in the work directory, or in PATH',
        nargs='?',
        const=AUTO,
        metavar='PATH',
    )
    amp: bool = flag('train with automatic mixed precision; on the CPU in bfloat16')
    no_validate: bool = flag('validate only for the rows of the table')
    auto_scale_lr: bool = flag("scale learning rates to the batch size: the config's auto_scale_lr")
    no_pin_memory: bool = flag('do not pin the memory of data loaders')
    no_persistent_workers: bool = flag('do not keep the workers of data loaders')
    launcher: Literal['none', 'pytorch', 'slurm', 'mpi'] = option(
        'what has started the processes of the run: pytorch for torchrun, slurm for srun, mpi for '
        'mpirun; default: none',
        choices=LAUNCHERS,
        default='none',
    )
    local_rank: int | None = option(
        'number of this process on its machine; launchers pass it', '--local_rank', type=int,
        metavar='N',
    )  # fmt: skip

    @property
    def run_folder(self) -> str | None:
        """The work directory of the command line, or None.

        Raises:
            ConfigError: --resume and --work-dir name different folders, or --resume a file.
        """
        if self.resume in (None, AUTO):
            return self.work_dir
        path = Path(str(self.resume))
        if path.is_file():
            raise ConfigError(
                f'--resume got the file {str(path)!r}; expected the work directory of a run, which '
                'finds its checkpoints by itself'
            )
        if self.work_dir is not None and Path(self.work_dir).resolve() != path.resolve():
            raise ConfigError(
                f'--resume names {str(path)!r} and --work-dir {self.work_dir!r}; leave one of '
                'them out'
            )
        return str(path)

    def change(self, config: Config) -> None:
        """Change a config as the options say."""
        if self.amp:
            config.setdefault('optim_wrapper', {})
            config.optim_wrapper.type = 'AmpOptimWrapper'
            config.optim_wrapper.setdefault('loss_scale', 'dynamic')
        if self.no_validate:
            for key in _OF_VALIDATION:
                (config.get('train_cfg') or {}).pop(key, None)
        if self.auto_scale_lr:
            config.setdefault('auto_scale_lr', {})
            config.auto_scale_lr.enable = True
        changes: dict[str, Any] = {}
        if self.no_pin_memory:
            changes['pin_memory'] = False
        if self.no_persistent_workers:
            changes['persistent_workers'] = False
        for name in _LOADERS:
            if config.get(name):
                config[name].update(changes)
