"""The context of a mask source in a run: training batches, the loss, validation accuracy."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.helpers.plugin_files import write_plugin
from tests.helpers.tiny import BATCH, TRAIN_IMAGES, prune, summary, tiny_config, write_config

PLUGIN = """
import copy, json
from pathlib import Path
import torch
from easypruner import Masks, MaskSource, hookimpl

class Asking(MaskSource):
    def select(self, graph, context):
        before = {name: t.clone() for name, t in graph.model.state_dict().items()}
        passes = [list(context.batches()) for _ in range(2)]
        labels = [[int(s.gt_label) for b in p for s in b['data_samples']] for p in passes]
        loss = context.loss(graph.model, passes[0][0])
        loss.backward()
        broken = copy.deepcopy(graph.model)
        torch.nn.init.zeros_(broken.head.fc.weight)
        single = []
        for digit in range(10):
            broken.head.fc.bias.data = torch.eye(10)[digit]
            single.append(context.evaluate(broken))
        told = dict(
            batches=len(passes[0]), same=labels[0] == labels[1], loss=float(loss),
            gradients=all(p.grad is not None for p in graph.model.parameters()),
            accuracy=context.evaluate(graph.model), single=single,
            again=context.evaluate(graph.model), seed=context.seed,
            unchanged=all(torch.equal(t, before[name])
                          for name, t in graph.model.state_dict().items()
                          if 'running' not in name and 'num_batches' not in name),
        )
        Path(FILE).write_text(json.dumps(told))
        return Masks({name: torch.arange(g.size) > 0 for name, g in graph.groups.items()})

@hookimpl
def easypruner_components():
    return [Asking]
"""


def test_a_source_gets_batches_loss_and_accuracy(tmp_path: Path) -> None:
    reported = tmp_path / 'told.json'
    plugin = write_plugin(
        tmp_path / 'plugins', 'requested_by.py', PLUGIN.replace('FILE', repr(str(reported)))
    )
    stages = [
        dict(type='Train', epochs=2, row='baseline'),
        dict(type='SelectMask', source=dict(type='Asking')),
        dict(type='Prune'),
        dict(type='Report'),
    ]
    config = write_config(tmp_path, tiny_config(stages=stages))
    arguments = ['--plugins', str(plugin.parent), '--seed', '5']
    assert prune(config, tmp_path / 'run', *arguments) == 0
    actual = json.loads(reported.read_text())
    baseline = summary(tmp_path / 'run')['rows'][0]['accuracy']
    assert actual['batches'] == TRAIN_IMAGES // BATCH
    assert actual['same']
    assert actual['gradients']
    assert actual['unchanged']
    assert actual['seed'] == 5
    assert actual['loss'] > 0
    assert actual['accuracy'] == actual['again'] == baseline
    # A network that predicts the same digit for all images is right for all of these.
    assert sum(actual['single']) == pytest.approx(100)
    assert 0 < min(actual['single']) < max(actual['single'])
