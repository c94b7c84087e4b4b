"""SGD for batches of 128 over 200 epochs, with steps at 100 and 150, as mmpretrain."""

optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=1e-4))
param_scheduler = dict(type='MultiStepLR', by_epoch=True, milestones=[100, 150], gamma=0.1)
train_cfg = dict(max_epochs=200)
