"""What a result depends on beside its config: versions of packages, the device, the threads."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

__version__ = '2.0.0.dev0'


def versions_of(*packages: str) -> dict[str, str]:
    """Return a dict of package name -> version, with EasyPruner first.

    Raises:
        importlib.metadata.PackageNotFoundError: a package is not installed.
    """
    return {'easypruner': __version__, **{name: version(name) for name in packages}}


def machine() -> dict[str, Any]:
    """Return what rounding depends on: the device, and the number of threads of torch."""
    # This module is imported before torch is needed.
    import torch

    has_gpu = torch.cuda.is_available()
    device = torch.cuda.get_device_name() if has_gpu else 'cpu'
    return {'device': device, 'threads': torch.get_num_threads()}
