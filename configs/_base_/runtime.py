"""Settings that all runs share."""

default_scope = 'mmpretrain'

env_cfg = dict(
    cudnn_benchmark=False,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),
)
val_cfg = dict()
seed = 0
