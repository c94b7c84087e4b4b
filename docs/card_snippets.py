"""The snippets of the cards: each strategy in a config, and without a run."""

from __future__ import annotations

import ast

from easypruner.plugins.registry import BUDGETS, MASK_SOURCES, REGULARIZERS, RUNTIMES, STAGES

_IMPORTS = """import torch
import torchvision

import easypruner
"""
_NETWORK = """
model = torchvision.models.resnet18()  # your trained network
images = torch.randn(8, 3, 64, 64)  # example inputs
"""
_DATA = """batches = [(images, torch.randint(1000, (8,)))]  # your training data: inputs and targets
"""
_MASKS = """groups = graph.groups.items()
masks = easypruner.Masks({name: torch.arange(group.size) % 2 == 0 for name, group in groups})
"""
_CUT = """\
    dict(type='SelectMask', source=dict(type='L1Norm', budget=dict(type='Macs', keep=0.5))),
    dict(type='Prune'),
"""

SOURCE_ARGUMENTS = {
    'EagleEye': 'candidates=10',
    'Evolution': 'population=6, generations=2, parents=3',
    'Hessian': 'batches=2',
    'LpNorm': 'p=1.5',
    'Sensitivity': 'steps=3',
}
"""Source -> arguments of its snippets; those of searches are small, so that they run quickly."""
WITH_DATA = frozenset({'APoZ', 'EagleEye', 'Evolution', 'Fisher', 'HRank', 'Hessian',
                       'MeanActivation', 'Sensitivity', 'Taylor'})  # fmt: skip
"""The sources that need data."""

BUDGET_ARGUMENTS = {
    'GroupThreshold': "values={'layer1.*': 0.9, '*': 0.8}",
    'Latency': "keep=0.8, table='latency.json'",
    'Macs': 'keep=0.5',
    'OptimalThreshold': 'share=1e-3',
    'Params': 'keep=0.5',
    'Ratio': "keep=0.6, scope='layer'",
    'Threshold': 'value=0.9',
}
"""Budget -> arguments of its snippets."""
BUDGET_PATTERNS = {'GroupThreshold': "values={'backbone.stages.0.*': 0.9, '*': 0.8}"}
"""Budget -> other arguments in a config, whose network has other layers."""

REGULARIZER_ARGUMENTS = {
    'ActivationSparsity': 'strength=1e-3',
    'GReg': 'strength=dict(reach=4)',
    'GlobalSparsity': 'strength=5e-4',
    'GradDecay': 'share=0.5',
    'GroupLasso': "strength=1e-4, over='group', alpha=4.0",
    'HoyerSquare': "strength=1e-3, strength_schedule='linear'",
    'MaskSparsity': 'strength=dict(until=1e-3)',
    'Polarization': 'strength=1e-4',
}
"""Regularizer -> its arguments in a config."""
RANKED_BY = {'ActivationSparsity': 'APoZ', 'GReg': 'L1Norm', 'GroupLasso': 'Group'}
"""Regularizer -> the source of its config; ``BNScale`` for any other."""
OF_REMOVED = frozenset({'GReg', 'GradDecay', 'MaskSparsity'})
"""The regularizers that need masks."""

STAGE_CONFIGS = {
    'Calibrate': _CUT + "    dict(type='Calibrate', batches=50),\n",
    'Distill': _CUT
    + "    dict(type='Distill', epochs=6, soft=dict(temperature=4.0), row='distilled'),\n",
    'Evaluate': "    dict(type='Evaluate', checkpoint='trained.pth'),\n" + _CUT,
    'Export': _CUT + "    dict(type='Export', runtimes=['OnnxRuntime']),\n",
    'Iterative': """    dict(
        type='Iterative',
        steps=3,
        schedule='agp',
        each=[
            dict(type='SelectMask', source=dict(type='L1Norm', budget=dict(type='Macs', keep=0.5))),
            dict(type='Prune'),
            dict(type='Train', epochs=2),
        ],
    ),
""",
    'LoadMask': "    dict(type='LoadMask', path='masks.safetensors'),\n    dict(type='Prune'),\n",
    'Prune': _CUT.replace("'Prune')", "'Prune', compensate='mean')"),
    'Quantize': _CUT
    + "    dict(type='Train', epochs=2, row='finetuned'),\n    dict(type='Quantize'),\n",
    'Reinitialise': _CUT
    + "    dict(type='Reinitialise'),\n    dict(type='Train', epochs=6, row='scratch'),\n",
    'Report': _CUT + "    dict(type='Report'),\n",
    'Rewind': """    dict(
        type='Train',
        name='global_sparsity',
        epochs=6,
        regularizer=dict(type='GlobalSparsity', strength=5e-4),
    ),
    dict(
        type='SelectMask',
        source=dict(type='BNScale', reduction='vote', budget=dict(type='Macs', keep=0.5)),
    ),
    dict(type='Rewind'),
    dict(type='Train', epochs=6, regularizer=dict(type='MaskSparsity', strength=dict(until=1e-3))),
    dict(type='Prune'),
""",
    'SelectMask': _CUT,
    'Train': _CUT
    + """    dict(
        type='Train',
        name='finetune',
        epochs=6,
        row='finetuned',
        optim_wrapper=dict(optimizer=dict(lr=0.01)),
    ),
""",
    'Zero': """    dict(
        type='Iterative',
        steps=3,
        schedule='constant',
        each=[
            dict(
                type='SelectMask',
                source=dict(type='L2Norm', budget=dict(type='Ratio', keep=0.7, scope='layer')),
            ),
            dict(type='Zero'),
            dict(type='Train', epochs=1),
        ],
    ),
    dict(type='Prune'),
""",
}
"""Stage -> the elements of a config's ``stages``."""

_TRACED = _IMPORTS + _NETWORK + 'graph = easypruner.trace(model, images)\n'
STAGE_CODE = {
    'Calibrate': _IMPORTS
    + """from easypruner.strategies.measures.calibration import calibrate
"""
    + _NETWORK
    + _DATA
    + """
slimmed = easypruner.slim(model, images, macs=0.5)
calibrate(slimmed.model, batches, lambda network, batch: network(batch[0]))
""",
    'Distill': 'It only makes sense in a run, which knows the unpruned network. In your own loop, '
    "add the divergence between both networks' outputs to the loss.",
    'Evaluate': 'It only makes sense in a run, because it adds a row to the table of the run. '
    'Otherwise, use your own evaluation; `easypruner.slim(..., evaluate=...)` calls it.',
    'Export': _IMPORTS
    + _NETWORK
    + """
slimmed = easypruner.slim(model, images, macs=0.5)
print(easypruner.export(slimmed, images, 'exported', 'OnnxRuntime', unpruned=model))
""",
    'Iterative': _IMPORTS
    + """from easypruner import Context
from easypruner_plugins.lp_norm import L1Norm
from easypruner_plugins.macs import Macs
"""
    + _NETWORK
    + """graph = easypruner.trace(model, images)
source, budget, steps = L1Norm(), Macs(keep=0.5), 3
reference = budget.reference(graph)
for step in range(steps):
    source.budget = budget.partial(step / steps, (step + 1) / steps, reference)
    easypruner.prune(model, source.select(graph, Context()), graph=graph)
    # train the model here, with a new optimizer
print(graph.cost())
""",
    'LoadMask': _TRACED
    + _MASKS
    + """masks.save('masks.safetensors')  # or masks.safetensors of a run

masks = easypruner.Masks.load('masks.safetensors')
masks.check(graph)
""",
    'Prune': _TRACED
    + _MASKS
    + """record = easypruner.prune(model, masks, graph=graph)  # in place
record.save('architecture.json')
torch.save(model.state_dict(), 'pruned.pth')

again = easypruner.load_pruned(torchvision.models.resnet18, 'pruned.pth', 'architecture.json')
""",
    'Quantize': _IMPORTS
    + """from easypruner_plugins.int8_layers import quantize
"""
    + _NETWORK
    + """
slimmed = easypruner.slim(model, images, macs=0.5)
quantized, transform = quantize(slimmed.model.eval(), images)
for path, reason in transform.kept.items():  # the layers that stay in float
    print(path, reason)
""",
    'Rewind': 'Keep a copy of the state dict of your trained network before the penalty, and load '
    'it after the selection: `model.load_state_dict(trained)`. The masks stay valid.',
    'Reinitialise': _IMPORTS
    + _NETWORK
    + """
record = easypruner.slim(model, images, macs=0.5).record
fresh = record.apply(torchvision.models.resnet18(), ())  # new weights, cut to the same shape
for module in fresh.modules():
    if hasattr(module, 'reset_parameters'):
        module.reset_parameters()  # initialized for the new shape
""",
    'Report': 'It only makes sense in a run, whose files it writes. `print(easypruner.slim(...))` '
    'shows a summary without a run.',
    'SelectMask': _IMPORTS
    + """from easypruner import Context
from easypruner_plugins.lp_norm import L1Norm
from easypruner_plugins.macs import Macs
"""
    + _NETWORK
    + """graph = easypruner.trace(model, images)
masks = L1Norm(budget=Macs(keep=0.5)).select(graph, Context())
print(graph.cost(masks))
masks.save('masks.safetensors')
""",
    'Train': 'It only makes sense in a run, which builds the MMEngine Runner. Otherwise, train '
    'with your own loop; the cards of the regularizers show how one is called.',
    'Zero': _IMPORTS
    + """from easypruner.strategies.measures.zeroing import zero
"""
    + _NETWORK
    + 'graph = easypruner.trace(model, images)\n'
    + _MASKS
    + """zero(graph, masks)  # in place
""",
}
"""Stage -> code that does the same without a run, or why there is none."""


def config_code(name: str) -> str:
    """Return an excerpt of a config that uses a strategy."""
    head = ''
    if name in RUNTIMES.classes:
        head = f"graph = dict(target='{name}')\n"
        stages = f"{_CUT}    dict(type='Export', runtimes=['{name}']),\n"
    elif name in STAGES.classes:
        stages = STAGE_CONFIGS[name]
    elif name in REGULARIZERS.classes:
        stages = _regularizer_config(name)
    elif name in BUDGETS.classes:
        arguments = BUDGET_PATTERNS.get(name, BUDGET_ARGUMENTS[name])
        source = 'BNScale' if name == 'OptimalThreshold' else 'L1Norm'
        stages = _select(f"type='{source}'", f"type='{name}', {arguments}")
        stages += "    dict(type='Prune'),\n"
    else:
        arguments = ', '.join(filter(None, [f"type='{name}'", SOURCE_ARGUMENTS.get(name)]))
        if MASK_SOURCES.classes[name].takes_budget():
            stages = _select(arguments, "type='Macs', keep=0.5")
        else:
            path = "path='masks.safetensors'"
            stages = f"    dict(type='SelectMask', source=dict({arguments}, {path})),\n"
        stages += "    dict(type='Prune'),\n"
    return f'{head}stages = [\n{stages}]\n'


def _select(source: str, budget: str) -> str:
    """Return a SelectMask stage."""
    call = f"dict(type='SelectMask', source=dict({source}, budget=dict({budget})))"
    return _laid_out(call, indent=4, end=',')


def _laid_out(call: str, start: str = '', indent: int = 0, end: str = '') -> str:
    """Return a call as a formatter writes it, with an argument on each line if it is long.

    Args:
        call: the code of the call, on one line.
        start: what comes before the call, such as ``source=``.
        indent: the number of spaces before it.
        end: what comes after it.
    """
    line = f'{" " * indent}{start}{call}{end}\n'
    node = ast.parse(call).body[0]
    if len(line) <= 101 or not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)):
        return line
    parts = [('', value) for value in node.value.args]
    parts += [(f'{keyword.arg}=', keyword.value) for keyword in node.value.keywords]
    lines = [
        _laid_out(ast.get_source_segment(call, value) or '', name, indent + 4, ',')
        for name, value in parts
    ]
    head = f'{start}{ast.unparse(node.value.func)}('
    return f'{" " * indent}{head}\n{"".join(lines)}{" " * indent}){end}\n'


def _regularizer_config(name: str) -> str:
    push = f"regularizer=dict(type='{name}', {REGULARIZER_ARGUMENTS[name]})"
    train = _laid_out(f"dict(type='Train', epochs=6, {push})", indent=4, end=',')
    select = _select(f"type='{RANKED_BY.get(name, 'BNScale')}'", "type='Macs', keep=0.5")
    return ''.join([select, train] if name in OF_REMOVED else [train, select]) + (
        "    dict(type='Prune'),\n    dict(type='Train', name='finetune', epochs=6, "
        "row='finetuned'),\n"
    )


def plain_code(name: str) -> str:
    """Return code that uses a strategy without a run, or a sentence why there is none."""
    if name in STAGES.classes:
        return STAGE_CODE[name]
    if name in REGULARIZERS.classes:
        return _training_loop(name)
    if name in RUNTIMES.classes:
        return _runtime_code(name)
    if name == 'MaskFile':
        save = "masks.save('masks.safetensors')  # or masks.safetensors of a run\n"
        source = "dict(type='MaskFile', path='masks.safetensors')"
        return f'{_TRACED}{_MASKS}{save}\n{_slim(f"source={source}")}'
    if name == 'Latency':
        measure = 'from easypruner.strategies.budgets.latency import measure_table\n'
        table = "measure_table(graph, 'latency.json', shares=(0.5,), repeats=5)\n"
        head = f'{_IMPORTS}{measure}{_NETWORK}graph = easypruner.trace(model, images)\n{table}'
        return head + _slim(f"budget=dict(type='Latency', {BUDGET_ARGUMENTS[name]})")
    if name in BUDGETS.classes:
        code = _slim(f"source='L1Norm', budget=dict(type='{name}', {BUDGET_ARGUMENTS[name]})")
        return _IMPORTS + _NETWORK + code
    arguments = SOURCE_ARGUMENTS.get(name)
    source = f"dict(type='{name}', {arguments})" if arguments else f"'{name}'"
    data = ', batches=batches' if name in WITH_DATA else ''
    code = _slim(f'source={source}, macs=0.5{data}')
    return _IMPORTS + _NETWORK + (_DATA if data else '') + code


def _runtime_code(name: str) -> str:
    call = f"easypruner.slim(model, images, macs=0.5, source='L1Norm', target='{name}')"
    return f"""{_IMPORTS}{_NETWORK}{_laid_out(call, start='slimmed = ').rstrip()}
print(easypruner.export(slimmed, images, 'exported', '{name}'))
print(easypruner.benchmark([model, slimmed], images, '{name}'))
"""


def _slim(arguments: str) -> str:
    call = _laid_out(f'easypruner.slim(model, images, {arguments})', start='slimmed = ')
    return f'{call}print(slimmed)  # slimmed.model is a pruned copy\n'


def _training_loop(name: str) -> str:
    module = REGULARIZERS.classes[name].__module__
    arguments = REGULARIZER_ARGUMENTS[name]
    if 'reach' in arguments or 'until' in arguments:
        arguments = 'strength=5e-4'
    masks = _MASKS if name in OF_REMOVED else 'masks = None\n'
    comment = '# of a mask source\n' if name in OF_REMOVED else ''
    return f"""{_IMPORTS}from easypruner import Progress
from {module} import {name}
{_NETWORK}{_DATA}graph = easypruner.trace(model, images)
{comment}{masks}regularizer = {name}({arguments})
optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
with regularizer.watching(graph, masks):
    for update, (inputs, targets) in enumerate(batches):
        lr = optimizer.param_groups[0]['lr']
        progress = Progress(update, len(batches), lr=lr, optimizer=optimizer)
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(inputs), targets)
        regularizer.joined(loss, progress).backward()
        regularizer.before_step(graph, masks, progress)
        optimizer.step()
        regularizer.after_step(graph, masks, progress)
"""
