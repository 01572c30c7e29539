"""Losses of the families that score classes by sigmoids; DETR's own, over a softmax, is `model.loss`."""
