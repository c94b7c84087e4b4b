"""What all configs on hard MNIST images have in common: data, schedule, runtime, limits, budget."""

_base_ = ['datasets/mnist5k_hard.py', 'schedules/digits.py', 'runtime.py']

# Variants of each image, so that a network does not learn the images by heart.
train_dataloader = dict(dataset=dict(variants=16))
train_cfg = dict(max_epochs=32)
# Narrow convolutions train faster so on a CPU.
custom_hooks = [dict(type='easypruner.ChannelsLastHook')]
# No group loses more than four in five of its channels: nothing passes a group of one or two. So
# small a network is as fast with widths of any size.
graph = dict(limits={'*': dict(max_removed=0.8, round_to=1)})
budget = dict(type='Macs', keep=0.15)
