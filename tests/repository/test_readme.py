"""The README's code runs, and its comments are correct."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / 'README.md'


def code_block(words: str) -> str:
    """Return the README's Python block that has these words."""
    blocks = re.findall(r'```python\n(.*?)```', README.read_text(encoding='utf-8'), re.DOTALL)
    return next(block for block in blocks if words in block)


@pytest.mark.slow
def test_the_api_example(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(code_block('architecture = easypruner.prune'), names)
    printed = capsys.readouterr().out
    assert '37 groups' in printed
    error = float(re.search(r'error=([-+.e\d]+)', printed)[1])
    assert error < 1e-5
    assert names['again'].fc.weight.shape == names['model'].fc.weight.shape == (1000, 1024)


def test_the_example_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict = {}
    exec(code_block('easypruner.slim('), names)
    assert 'budget Macs: asked 0.5, delivered 0.' in capsys.readouterr().out
    assert names['model'].conv1.out_channels < 64


def test_the_plugin_example(tmp_path: Path) -> None:
    import easypruner
    from easypruner.plugins import load_plugins
    from easypruner.plugins.registry import MASK_SOURCES, build
    from easypruner.testing import example_inputs, randomized_network
    from easypruner.testing.networks import Residual

    (tmp_path / 'reader_norm.py').write_text(code_block('import torch\nfrom easypruner'))
    load_plugins(folders=[tmp_path])
    source = build(MASK_SOURCES, {'type': 'ReaderNorm', 'budget': {'type': 'Macs', 'keep': 0.5}})
    model = randomized_network(Residual)
    graph = easypruner.trace(model, example_inputs())
    scores = source.score(graph, easypruner.Context())
    reader = model.branch[1].weight.square().sum((0, 2, 3)).sqrt()
    assert scores['branch.0.0'].allclose(reader)


def test_every_command_names_a_file_that_is_there() -> None:
    text = README.read_text(encoding='utf-8')
    paths = set(re.findall(r'\b(?:tools|configs|docs|benchmarks)/[\w/.-]+\.\w+', text))
    assert len(paths) > 5
    for path in paths:
        assert (README.parent / path).is_file(), path
