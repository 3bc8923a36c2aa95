"""Sharing schemes: cross-stitch units, attention over shared maps, task adapters, FiLM and shared experts."""
