"""A stranger's plugin, written from the reference pages alone: polylines, such as lanes on a road."""
