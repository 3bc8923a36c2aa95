"""Train, evaluate and run one vision model for several tasks."""

__version__ = "0.2.0"
