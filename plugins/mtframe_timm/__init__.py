"""Every timm model that has feature maps, as a backbone: `timm/resnet18`, `timm/vit_small_patch16_dinov3`."""
