"""Components are found by name, as the command line finds them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from easypruner import MaskSource, Stage
from easypruner.errors import EasyPrunerError
from easypruner.plugins import load_plugins
from easypruner.plugins.registry import BUDGETS
from easypruner.testing import component
from tests.helpers.plugin_files import HALTING_STAGE, write_plugin, write_source


class TestComponent:
    @pytest.fixture(autouse=True)
    def afterwards(self) -> Iterator[None]:
        yield
        load_plugins()

    def test_a_class_of_the_folder_comes_before_one_of_another_kind(self, tmp_path: Path) -> None:
        write_source(tmp_path, 'Train')
        write_plugin(tmp_path, 'stage.py', HALTING_STAGE.replace('Halting', 'BNScale'))
        assert issubclass(component('Train', tmp_path), MaskSource)
        assert issubclass(component('BNScale', tmp_path), Stage)

    def test_others_are_found_too(self, tmp_path: Path) -> None:
        write_source(tmp_path, 'Own')
        assert component('Macs', tmp_path) is BUDGETS.classes['Macs']
        with pytest.raises(EasyPrunerError, match="contributes 'Ownn'; did you mean 'Own'"):
            component('Ownn', tmp_path)

    def test_two_of_one_name_are_reported(self, tmp_path: Path) -> None:
        write_source(tmp_path, 'Halting', 'source.py')
        write_plugin(tmp_path, 'stage.py', HALTING_STAGE)
        with pytest.raises(EasyPrunerError, match="'Halting' is a mask source and a stage; give"):
            component('Halting', tmp_path)
