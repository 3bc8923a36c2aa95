"""Train, evaluate and run one vision model for several tasks."""

__version__ = "0.1.0"
