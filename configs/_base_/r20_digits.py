"""The setting of all recipes on the digits: model, data, schedule and runtime."""

_base_ = [
    'models/resnet20_digits.py',
    'datasets/digits.py',
    'schedules/digits.py',
    'runtime.py',
]
