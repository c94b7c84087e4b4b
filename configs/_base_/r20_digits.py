"""The setting of all recipes on the digits: model, data, schedule, runtime and limits."""

_base_ = [
    'models/resnet20_digits.py',
    'datasets/digits.py',
    'schedules/digits.py',
    'runtime.py',
]

# Of every group, at least 30 % of the channels stay: all data passes the residual streams.
graph = dict(limits={'*': dict(max_removed=0.7)})
