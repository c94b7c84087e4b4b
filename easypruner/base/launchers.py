"""The launchers of runs in several processes, and what each tells a process about itself.

This module imports no large package, because errors before the start of a run need it as well.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from easypruner.errors import ConfigError

Launcher = Literal['none', 'pytorch', 'slurm', 'mpi']
LAUNCHERS: tuple[Launcher, ...] = get_args(Launcher)
_RANK, _SIZE, _LOCAL, _ADDRESS, _PORT = (
    'RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'MASTER_ADDR', 'MASTER_PORT',
)  # fmt: skip
_DEFAULT_PORT = 29500
_PORTS = 20_000


@dataclass(frozen=True)
class _Variables:
    """The names of the variables in which a launcher passes numbers to a process."""

    rank: str
    size: str
    local: str

    def found(self, environment: Mapping[str, str]) -> bool:
        return all(name in environment for name in (self.rank, self.size, self.local))


_SLURM = _Variables('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_LOCALID')
_MPI = (
    _Variables('OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_SIZE', 'OMPI_COMM_WORLD_LOCAL_RANK'),
    _Variables('PMI_RANK', 'PMI_SIZE', 'MPI_LOCALRANKID'),
    _Variables('PMI_RANK', 'PMI_SIZE', 'PMI_LOCAL_RANK'),
)

_MPI_LOCAL_SIZES = ('OMPI_COMM_WORLD_LOCAL_SIZE', 'MPI_LOCALNRANKS')


def set_environment(launcher: Launcher, local_rank: int | None = None) -> None:
    """Set the variables that torch.distributed reads, from those of a launcher.

    Args:
        launcher: the launcher of the processes of this run.
        local_rank: the number of this process on its machine, as old versions of
            ``torch.distributed.launch`` pass it; None if it was not passed.

    Raises:
        ConfigError: the process was not started by this launcher.
    """
    if local_rank is not None:
        os.environ.setdefault(_LOCAL, str(local_rank))
    if launcher == 'slurm':
        _set_from(_numbers_of('slurm', (_SLURM,), 'srun'), _slurm_address())
    elif launcher == 'mpi':
        _set_from(_numbers_of('mpi', _MPI, 'mpirun'), _mpi_address())
    else:
        check(launcher)


def check(launcher: Launcher) -> None:
    """Raise ConfigError unless the processes of the run were started for this launcher."""
    count = os.environ.get(_SIZE, '1')
    if launcher == 'none' and _LOCAL in os.environ and count != '1':
        raise ConfigError(
            f'torchrun has started {count} processes, but without --launcher pytorch each of them '
            'would run the whole config alone, in the same folder; add --launcher pytorch, or '
            'start without torchrun'
        )
    missing = [n for n in (_RANK, _SIZE, _LOCAL, _ADDRESS, _PORT) if n not in os.environ]
    if launcher != 'none' and missing:
        raise ConfigError(
            f'--launcher {launcher} needs the variables that torchrun sets, but '
            f'{", ".join(missing)} are missing; start with torchrun --nproc_per_node=2 '
            'tools/prune.py ... --launcher pytorch, or leave --launcher out'
        )


def _numbers_of(launcher: str, known: tuple[_Variables, ...], command: str) -> _Variables:
    found = next((variables for variables in known if variables.found(os.environ)), None)
    if found is None:
        names = ' or '.join(f'{v.rank}, {v.size} and {v.local}' for v in known)
        raise ConfigError(
            f'--launcher {launcher} needs the variables that {command} sets ({names}), but they '
            f'are missing; start with {command} ... tools/prune.py ... --launcher {launcher}'
        )
    return found


def _set_from(numbers: _Variables, address: str) -> None:
    os.environ[_RANK] = os.environ[numbers.rank]
    os.environ[_SIZE] = os.environ[numbers.size]
    os.environ[_LOCAL] = os.environ[numbers.local]
    os.environ.setdefault(_ADDRESS, address)
    # Jobs that share a machine need different ports, and all processes of a job the same one.
    job = int(re.sub(r'\D', '', os.environ.get('SLURM_JOB_ID', '')) or 0)
    os.environ.setdefault(_PORT, str(_DEFAULT_PORT + job % _PORTS))


def _mpi_address() -> str:
    """Return the address of this machine.

    Raises:
        ConfigError: the run has processes on other machines, which cannot find this one.
    """
    here = next((os.environ[name] for name in _MPI_LOCAL_SIZES if name in os.environ), None)
    counts = {os.environ[v.size] for v in _MPI if v.size in os.environ}
    if here is not None and here not in counts and _ADDRESS not in os.environ:
        raise ConfigError(
            f'--launcher mpi has {here} of {", ".join(counts)} processes on this machine, and MPI '
            'does not tell where the first one is; set the variable MASTER_ADDR to its machine'
        )
    return '127.0.0.1'


def _slurm_address() -> str:
    """Return the first machine of a job of Slurm."""
    nodes = os.environ.get('SLURM_STEP_NODELIST') or os.environ.get('SLURM_NODELIST') or ''
    if '[' not in nodes.split(',')[0]:
        return nodes.split(',')[0] or '127.0.0.1'
    if shutil.which('scontrol') is not None:
        command = ['scontrol', 'show', 'hostname', nodes]
        listed = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()
        if listed:
            return listed[0]
    # A list such as node[003-005,9],other: the first machine has the first number.
    return re.sub(r'\[(\d+)[^]]*\].*', r'\1', nodes)
