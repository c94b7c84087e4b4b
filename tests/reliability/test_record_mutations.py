"""Records with random mistakes: each is refused with a message, or is still a record."""

from __future__ import annotations

import contextlib
import json
import tracemalloc
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from easypruner import prune, trace
from easypruner.base.json_fields import content_hash
from easypruner.errors import RecordError
from easypruner.graph import ArchitectureRecord
from easypruner.graph.cutting.record import CUT_KIND
from easypruner.testing import network, random_masks
from tests.helpers.mutations import mutated

EMPTY: dict[str, Any] = dict(
    format=1, kind=CUT_KIND, model='Net', versions={}, groups={}, attributes={}, tensors={}
)
NETWORK = network('transformer')
NESTED: list[Any] = []
for _ in range(300):
    NESTED = [NESTED]


@pytest.fixture(scope='module')
def content() -> dict[str, Any]:
    """The content of the record of a cut, without its hash."""
    model = NETWORK.build()
    graph = trace(model, NETWORK.inputs())
    found = prune(model, random_masks(graph), graph=graph).to_json()
    return {key: value for key, value in found.items() if key != 'hash'}


def written(folder: Path, content: Any) -> Path:
    """Write a record with a right hash, which therefore does not show the mistake."""
    file = folder / 'architecture.json'
    hashed = isinstance(content, dict)
    file.write_text(json.dumps({**content, 'hash': content_hash(content)} if hashed else content))
    return file


@settings(max_examples=200, database=None, suppress_health_check=list(HealthCheck),
          phases=[Phase.generate])  # fmt: skip
@given(random=st.randoms(use_true_random=True))
def test_a_mutated_record_is_refused_or_applies(
    content: dict[str, Any], tmp_path: Path, random: Random
) -> None:
    changed = mutated(random, content)[1]
    try:
        record = ArchitectureRecord.load(written(tmp_path, changed))
        record.apply(NETWORK.build(), ())
    except RecordError as error:
        assert len(str(error)) < 2000


@settings(max_examples=100, database=None, suppress_health_check=list(HealthCheck),
          phases=[Phase.generate])  # fmt: skip
@given(random=st.randoms(use_true_random=True))
def test_without_a_new_hash_only_the_same_record_is_read(
    content: dict[str, Any], tmp_path: Path, random: Random
) -> None:
    file = written(tmp_path, content)
    saved = ArchitectureRecord.load(file)
    changed = mutated(random, json.loads(file.read_text()))[1]
    file.write_text(json.dumps(changed))
    with contextlib.suppress(RecordError):
        assert ArchitectureRecord.load(file) == saved


@pytest.mark.parametrize(
    ('change', 'reported'),
    [
        (dict(groups={'a': {'units': 30_000_000, 'kept': '0-29999998'}}), 'groups.a.kept'),
        (dict(groups={'a': {'units': 3, 'kept': '\u0660-\u0661'}}), 'groups.a.kept'),
        (dict(tensors={'a': {'before': [3], 'after': [1], 'kept': {'\u0660': '1'}}}), 'dimension'),
        (
            dict(tensors={'a': {'before': [3], 'after': [1], 'kept': {'9' * 5000: '1'}}}),
            'dimension',
        ),
        (dict(versions={'torch': NESTED}), 'levels deep'),
    ],
    ids=['a bomb', 'other digits', 'a dimension in other digits', 'a long dimension', 'nested'],
)
def test_a_small_file_costs_little(change: dict[str, Any], reported: str, tmp_path: Path) -> None:
    file = written(tmp_path, {**EMPTY, **change})
    tracemalloc.start()
    try:
        with pytest.raises(RecordError, match=reported):
            ArchitectureRecord.load(file)
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()


def test_deep_nesting_that_the_parser_refuses(tmp_path: Path) -> None:
    file = tmp_path / 'architecture.json'
    file.write_text('[' * 100_000)
    with pytest.raises(RecordError, match='cannot be read as JSON'):
        ArchitectureRecord.load(file)
