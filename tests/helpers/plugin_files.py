"""Plugins written for tests."""

from __future__ import annotations

from pathlib import Path

SOURCE = '''
from easypruner import MaskSource, hookimpl

class {name}(MaskSource):
    """Scores units by their index."""

    def score(self, graph, context):
        import torch
        return {{n: torch.arange(g.size).float() for n, g in graph.groups.items()}}

@hookimpl
def easypruner_components():
    return [{name}]
'''

HALTING_STAGE = """
from easypruner import Stage, hookimpl
from easypruner.errors import EasyPrunerError

class Halting(Stage):
    def __init__(self, halts=True):
        super().__init__()
        self.halts = halts

    def run(self, state):
        if self.halts:
            raise EasyPrunerError('this far and no further')
        return state

@hookimpl
def easypruner_components(): return [Halting]
"""


def write_plugin(folder: Path, file: str, text: str) -> Path:
    """Write a plugin file and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / file
    path.write_text(text)
    return path


def write_source(folder: Path, name: str, file: str | None = None) -> Path:
    """Write a plugin that contributes the mask source ``name``."""
    return write_plugin(folder, file or f'{name.lower()}.py', SOURCE.format(name=name))


def write_distribution(site: Path, project: str, module: str, entry: str = 'entry') -> None:
    """Write what pip would leave of a distribution whose entry point is ``module``."""
    info = site / f'{project}-1.2.3.dist-info'
    info.mkdir(parents=True)
    (info / 'METADATA').write_text(f'Metadata-Version: 2.1\nName: {project}\nVersion: 1.2.3\n')
    (info / 'entry_points.txt').write_text(f'[easypruner]\n{entry} = {module}\n')
