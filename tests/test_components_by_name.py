"""easypruner.sources, budgets and regularizers: components by name, without a config."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import easypruner
from easypruner import budgets, regularizers, sources
from easypruner.plugins import load_plugins
from easypruner.plugins.registry import BUDGETS, MASK_SOURCES, REGULARIZERS, ComponentRegistry
from tests.helpers.plugin_files import write_plugin

MODULES = [(sources, MASK_SOURCES), (budgets, BUDGETS), (regularizers, REGULARIZERS)]


@pytest.mark.parametrize(('module', 'registry'), MODULES)
def test_a_module_has_the_components_of_its_kind(
    module: ModuleType, registry: ComponentRegistry
) -> None:
    load_plugins()
    assert dir(module) == sorted(registry.classes)
    for name, cls in registry.classes.items():
        assert getattr(module, name) is cls


def test_components_are_composed_in_python() -> None:
    source = easypruner.sources.L1Norm(budget=easypruner.budgets.Macs(0.5))
    assert source.budget.keep == 0.5
    assert easypruner.regularizers.MaskSparsity(dict(reach=5)).apply is None


@pytest.mark.parametrize(
    ('module', 'name', 'message'),
    [
        (sources, 'L1Nrm', "easypruner.sources has no mask source 'L1Nrm'; did you mean 'L1Norm'?"),
        (budgets, 'macs', "did you mean 'Macs'?"),
        (regularizers, 'Macs', "has no regularizer 'Macs'; this is a budget"),
        (regularizers, '__path__', "no attribute '__path__'"),
    ],
)
def test_a_typo_names_the_nearest(module: ModuleType, name: str, message: str) -> None:
    with pytest.raises(AttributeError) as raised:
        getattr(module, name)
    assert message in str(raised.value)


@pytest.mark.in_ci
def test_plugins_are_found_on_first_use_and_not_before() -> None:
    code = (
        'import sys, easypruner; from easypruner import sources; '
        'print("easypruner_plugins.lp_norm" in sys.modules); '
        'print(sources.L1Norm.__module__)'
    )
    run = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ['False', 'easypruner_plugins.lp_norm']


def test_a_plugin_that_is_loaded_later_is_there(tmp_path: Path) -> None:
    code = """
from easypruner import hookimpl
from easypruner.sources import L1Norm

class Mine(L1Norm):
    \"\"\"As its base.\"\"\"

easypruner_components = hookimpl(lambda: [Mine])
"""
    assert 'Mine' not in dir(sources)
    load_plugins([write_plugin(tmp_path / 'own', 'mine.py', code).parent])
    try:
        assert sources.Mine.__name__ == 'Mine'
    finally:
        load_plugins()
