"""Object detection: readers of COCO, YOLO and VOC, dense and R-FCN heads, losses, letterbox augmentation, COCO AP."""
