"""MaskSparsity on masks by L1 norm: ResNet-20 on the digits, half the MACs.

There is no penalty on all channels before the selection. A closed loop raises the strength until
the scales and biases of the removed channels are zero, so that the cut does not change the network.
"""

_base_ = '_base_/r20_digits.py'

stages = [
    dict(type='Train', name='baseline', epochs=8, row='baseline'),
    dict(
        type='SelectMask',
        source=dict(type='L1Norm', budget=dict(type='Macs', keep=0.5)),
    ),
    dict(
        type='Train',
        name='mask_sparsity',
        epochs=10,
        row='sparse',
        regularizer=dict(type='MaskSparsity', strength=dict(until=1e-3)),
    ),
    dict(type='Prune'),
    dict(type='Calibrate'),
    dict(
        type='Train',
        name='finetune',
        epochs=8,
        row='finetuned',
        optim_wrapper=dict(optimizer=dict(lr=0.02)),
    ),
    dict(type='Report'),
]
