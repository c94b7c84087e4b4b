"""The version of EasyPruner and of the packages that a result depends on."""

from __future__ import annotations

from importlib.metadata import version

__version__ = '2.0.0.dev0'


def versions_of(*packages: str) -> dict[str, str]:
    """Return a dict of package name -> version, with EasyPruner first.

    Raises:
        importlib.metadata.PackageNotFoundError: a package is not installed.
    """
    return {'easypruner': __version__, **{name: version(name) for name in packages}}
