"""Observers of a training: what it writes as csv, what TensorBoard shows, and when it ends early."""
