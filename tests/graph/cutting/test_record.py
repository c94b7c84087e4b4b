"""The architecture record: a pruned network comes back from it bit for bit; bad files do not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

import easypruner
from easypruner.errors import ConfigError, RecordError
from easypruner.graph import ArchitectureRecord
from easypruner.testing import example_inputs, randomized_network
from easypruner.testing.networks import Plain, Residual
from tests.helpers.networks import NETWORKS, cut_randomly


@pytest.mark.parametrize('build', NETWORKS)
def test_a_pruned_network_comes_back_bit_for_bit(build: type[nn.Module], tmp_path: Path) -> None:
    model = randomized_network(build)
    record = cut_randomly(model, seed=6)
    record.save(tmp_path / 'architecture.json')
    torch.save(model.state_dict(), tmp_path / 'pruned.pth')
    again = easypruner.load_pruned(build, tmp_path / 'pruned.pth', tmp_path / 'architecture.json')
    assert type(again) is build
    assert torch.equal(again.eval()(example_inputs()), model.eval()(example_inputs()))


@pytest.mark.parametrize('build', NETWORKS)
def test_records_compose(build: type[nn.Module], tmp_path: Path) -> None:
    model = randomized_network(build)
    first = cut_randomly(model, seed=7, keep=0.7)
    second = cut_randomly(model, seed=8, keep=0.7)
    torch.save({'state_dict': model.state_dict()}, tmp_path / 'pruned.pth')
    first.then(second).save(tmp_path / 'architecture.json')
    again = easypruner.load_pruned(build, tmp_path / 'pruned.pth', tmp_path / 'architecture.json')
    assert torch.equal(again.eval()(example_inputs()), model.eval()(example_inputs()))
    assert ArchitectureRecord.load(tmp_path / 'architecture.json') == first.then(second)


def test_applied_to_the_original_it_keeps_the_weights() -> None:
    model, original = randomized_network(Residual), randomized_network(Residual)
    record = cut_randomly(model, seed=9)
    record.apply(original, ())
    assert all(
        torch.equal(a, b)
        for a, b in zip(model.state_dict().values(), original.state_dict().values(), strict=True)
    )


def test_another_network_is_refused() -> None:
    model = randomized_network(Plain)
    record = cut_randomly(model, keep=0.1)
    with pytest.raises(RecordError, match='does not have'):
        record.apply(randomized_network(Residual), ())
    with pytest.raises(RecordError, match='build the original, unpruned network'):
        record.apply(model, ())


def test_a_checkpoint_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    model = randomized_network(Plain)
    torch.save(model.state_dict(), tmp_path / 'full.pth')
    record = cut_randomly(model, keep=0.1)
    with pytest.raises(RecordError, match='does not fit'):
        easypruner.load_pruned(Plain, tmp_path / 'full.pth', record)


def test_the_record_of_a_later_cut_is_distinguished_from_that_of_all() -> None:
    model = randomized_network(Residual)
    first = cut_randomly(model, seed=7)
    later = cut_randomly(model, seed=8)
    state = model.state_dict()
    with pytest.raises(
        RecordError, match=r'later cut: give that of all cuts, first\.then\(second\)'
    ):
        easypruner.load_pruned(Residual, state, later)
    again = easypruner.load_pruned(Residual, state, first.then(later))
    assert torch.equal(again.eval()(example_inputs()), model(example_inputs()))
    first.then(later).check_cut(model)
    with pytest.raises(RecordError, match='give the record of the cuts that it has undergone'):
        first.check_cut(model)


def test_weights_and_records_may_be_files_or_in_memory(tmp_path: Path) -> None:
    model = randomized_network(Plain)
    record = cut_randomly(model)
    record.save(tmp_path / 'a.json')
    torch.save(model.state_dict(), tmp_path / 'a.pth')
    holder = easypruner.slim(randomized_network(Plain), example_inputs(), macs=0.5)
    for checkpoint, architecture, expected in (
        (str(tmp_path / 'a.pth'), str(tmp_path / 'a.json'), model),
        (model.state_dict(), record, model),
        ({'state_dict': model.state_dict()}, tmp_path / 'a.json', model),
        (holder.model.state_dict(), holder, holder.model),
    ):
        again = easypruner.load_pruned(Plain, checkpoint, architecture)
        assert torch.equal(again.eval()(example_inputs()), expected(example_inputs()))


def test_bad_arguments_of_load_pruned_are_reported(tmp_path: Path) -> None:
    model = randomized_network(Plain)
    record = cut_randomly(model)
    (tmp_path / 'text.pth').write_text('no weights')
    torch.save([1, 2], tmp_path / 'list.pth')
    state = model.state_dict()
    for error, text, arguments in (
        (ConfigError, 'model_factory of load_pruned is a Plain', (model, state, record)),
        (ConfigError, 'model_factory of load_pruned is a str', ('resnet50', state, record)),
        (RecordError, 'there is no checkpoint', (Plain, tmp_path / 'none.pth', record)),
        (RecordError, 'cannot be read as plain weights', (Plain, tmp_path / 'text.pth', record)),
        (RecordError, 'cannot be read as plain weights', (Plain, tmp_path, record)),
        (ConfigError, r'list\.pth.* is a list', (Plain, tmp_path / 'list.pth', record)),
        (ConfigError, 'is a Plain; expected a state dict', (Plain, model, record)),
        (ConfigError, 'architecture of load_pruned is a dict', (Plain, state, {})),
    ):
        with pytest.raises(error, match=text):
            easypruner.load_pruned(*arguments)


def test_a_record_is_short_when_printed() -> None:
    model = randomized_network(Plain)
    record = easypruner.prune(
        model, {'body.0.0': torch.arange(8) < 5}, example_inputs=example_inputs()
    )
    assert repr(record) == 'ArchitectureRecord(Plain: 1 groups, 6 tensors cut)'
    assert repr(record.tensors['body.1.0.weight']) == 'TensorCut((12, 8, 3, 3) -> (12, 5, 3, 3))'


def spoil(content: dict, location: tuple, value: object) -> dict:
    node = content
    for key in location[:-1]:
        node = node[key]
    node[location[-1]] = value
    return content


@pytest.mark.parametrize(
    ('location', 'value', 'named'),
    [
        (('format',), 99, 'format'),
        (('kind',), 'something else', 'kind'),
        (('model',), 3, 'model'),
        (('tensors',), [], 'tensors'),
        (('groups', 'body.0.0', 'units'), -1, 'units'),
        (('groups', 'body.0.0', 'kept'), '0-99', 'kept'),
        (('tensors', 'body.0.0.weight', 'before'), 'wide', 'before'),
        (('tensors', 'body.0.0.weight', 'after'), [1, 1, 1, 1], 'after'),
        (('tensors', 'body.0.0.weight', 'kept', '0'), '3-1', 'kept'),
        (('tensors', 'body.0.0.weight', 'kept', '0'), '__import__', 'kept'),
        (('tensors', 'body.0.0.weight', 'kept'), {'7': '0'}, 'kept'),
        (('versions', 'torch'), '0.1', 'hash'),
    ],
)
def test_an_edited_file_is_an_error_that_names_the_field(
    location: tuple, value: object, named: str, tmp_path: Path
) -> None:
    file = tmp_path / 'architecture.json'
    model = randomized_network(Plain)
    masks = {'body.0.0': torch.arange(8) < 5}
    easypruner.prune(model, masks, example_inputs=example_inputs()).save(file)
    file.write_text(json.dumps(spoil(json.loads(file.read_text()), location, value)))
    with pytest.raises(RecordError, match=named):
        ArchitectureRecord.load(file)


def test_a_truncated_or_missing_file_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / 'architecture.json'
    with pytest.raises(RecordError, match='there is no architecture record'):
        ArchitectureRecord.load(file)
    model = randomized_network(Plain)
    cut_randomly(model).save(file)
    file.write_text(file.read_text()[:100])
    with pytest.raises(RecordError, match='cannot be read'):
        ArchitectureRecord.load(file)
