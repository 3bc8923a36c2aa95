"""Every classification model of torchvision as a backbone: `torchvision/resnet18`, `torchvision/swin_t`."""
