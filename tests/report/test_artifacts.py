"""Artifacts that plugins contribute to a report are checked."""

from __future__ import annotations

from pathlib import Path

import pytest

from easypruner.errors import PluginError
from easypruner.plugins import load_plugins
from easypruner.report.artifacts import collect_artifacts
from tests.helpers.plugin_files import write_plugin


@pytest.mark.parametrize(
    ('returned', 'actual'),
    [
        ('3', 'an int,'),
        ('"table"', 'a str,'),
        ('{"name": "table"}', "a dict {'name': a str},"),
        ('[None]', r'a list \[None\],'),
        ('(n for n in [2])', r'a list \[an int\],'),
        ('Artifact("Runs", ("n",))', 'an Artifact,'),
    ],
)
def test_returned_values_that_are_not_artifacts(returned: str, actual: str, tmp_path: Path) -> None:
    write_plugin(
        tmp_path,
        'reports.py',
        'from easypruner import hookimpl\n'
        'from easypruner.report.result import Artifact\n'
        f'@hookimpl\ndef easypruner_report(runs): return {returned}\n',
    )
    with pytest.raises(
        PluginError, match=f'returned {actual} expected a list of .*: plugin reports,'
    ):
        collect_artifacts(load_plugins([tmp_path]).manager, [])
