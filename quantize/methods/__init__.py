"""Methods: they find the codes of a weight. How codes lie in a file is a format's business."""
