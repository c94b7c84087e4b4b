"""What a result depends on beside its config: versions of packages, the device, the threads."""

from __future__ import annotations

import functools
from importlib import metadata
from typing import Any

__version__ = '2.0.0.dev0'


def versions_of(*packages: str) -> dict[str, str]:
    """Return a dict of package name -> version, with EasyPruner first.

    Raises:
        importlib.metadata.PackageNotFoundError: a package is not installed.
    """
    return {'easypruner': __version__, **{name: _version(name) for name in packages}}


@functools.cache
def _version(package: str) -> str:
    # The metadata of a package is read as an e-mail is parsed.
    return metadata.version(package)


def machine() -> dict[str, Any]:
    """Return what rounding depends on: the device, and the number of threads of torch."""
    # This module is imported before torch is needed.
    import torch

    has_gpu = torch.cuda.is_available()
    device = torch.cuda.get_device_name() if has_gpu else 'cpu'
    return {'device': device, 'threads': torch.get_num_threads()}
