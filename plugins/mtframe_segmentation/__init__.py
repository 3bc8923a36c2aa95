"""Semantic segmentation: masks of class numbers, their reader, Panoptic FPN's head, pixel losses, mean IoU."""
