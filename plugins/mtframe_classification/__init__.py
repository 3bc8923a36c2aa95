"""Image classification: folders and csv files, one label, several or numbers, their heads, losses and metrics."""
