"""Balancers: the tasks' losses to the one that is differentiated."""

from ._sum import Sum as Sum
