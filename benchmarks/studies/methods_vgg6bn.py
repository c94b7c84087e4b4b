"""A study: all methods on hard MNIST images, with a small VGG, each tuned by four trials."""

_PUSHED = {
    'masksparsity': ('mask_sparsity', [5.0, 20.0]),
    'slimming': ('global_sparsity', [1.0, 2.5]),
    'polarization': ('polarization', [0.3, 1.0]),
    'depgraph': ('group_sparsity', [0.1, 0.33]),
    'greg': ('growing', [2.0, 7.0]),
}
_PLAIN = ('l1', 'fpgm', 'taylor', 'uniform', 'random')
_RATE = 'stages.finetune.lr'

configs = {
    name: dict(
        config=f'{name}_vgg6bn_mnist5k_hard',
        # The trials of one rate come first: they share no stage, so they can run at the same time.
        tune=tune({_RATE: ['10%', '50%'], f'stages.{stage}.regularizer.strength.reach': reaches}),
    )
    for name, (stage, reaches) in _PUSHED.items()
}
configs |= {
    name: dict(
        config=f'{name}_vgg6bn_mnist5k_hard', tune=tune(_RATE, ['10%', '25%', '50%', '100%'])
    )
    for name in _PLAIN
}
_NEW = tune('stages.scratch.lr', ['25%', '50%', '75%', '100%'])
configs['scratch'] = dict(config='scratch_vgg6bn_mnist5k_hard', tune=_NEW)
configs['scratch_masksparsity'] = dict(
    config='scratch_vgg6bn_mnist5k_hard', recipe='scratch_masksparsity', tune=_NEW
)
options = {'stages.report.runtimes': []}
budgets = [0.15, 0.5, 0.3, 0.08]
seeds = 5
