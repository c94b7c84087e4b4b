"""The setting of all recipes on the digits: model, data, schedule, runtime and limits."""

_base_ = [
    'models/resnet20_digits.py',
    'datasets/digits.py',
    'schedules/digits.py',
    'runtime.py',
]

# Of every group, at least 30 % of the channels stay: all data passes the residual streams.
# So small a network is as fast with widths of any size.
graph = dict(limits={'*': dict(max_removed=0.7, round_to=1)})
