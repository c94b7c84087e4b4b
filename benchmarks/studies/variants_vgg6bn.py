"""A study: what the parts of MaskSparsity change, on hard MNIST images, with a small VGG."""

_CONFIG, _PUSH = 'masksparsity_vgg6bn_mnist5k_hard', 'stages.mask_sparsity'
_VARIANTS = {
    'masksparsity': {},
    'masks by L1 norm': {'stages.select_mask.source.type': 'L1Norm'},
    'random masks': {'stages.select_mask.source.type': 'Random'},
    'masks of plain scales': {'stages.global_sparsity.regularizer.strength.reach': 0.01},
    'masks of strong push': {'stages.global_sparsity.regularizer.strength.reach': 5.0},
    'cut without compensation': {'stages.prune.compensate': None},
    'reach 5': {f'{_PUSH}.regularizer.strength.reach': 5.0},
    'reach 80': {f'{_PUSH}.regularizer.strength.reach': 80.0},
    'proximal': {f'{_PUSH}.regularizer.apply': 'proximal'},
    'longer push': {f'{_PUSH}.epochs': '125%', 'stages.finetune.epochs': '25%'},
    'longer fine-tuning': {f'{_PUSH}.epochs': '25%', 'stages.finetune.epochs': '125%'},
    'grid of 16': {'graph.limits.*.round_to': 16},
    'pushed every 4 updates': {f'{_PUSH}.regularize_every': 4},
    'pushed every 16 updates': {f'{_PUSH}.regularize_every': 16},
    'pushed every 32 updates': {f'{_PUSH}.regularize_every': 32},
}

configs = {name: dict(config=_CONFIG, options=keys) for name, keys in _VARIANTS.items()}
options = {'stages.finetune.lr': '50%', 'stages.report.runtimes': []}
budgets = [0.3]
seeds = 5
random = scratch = False
