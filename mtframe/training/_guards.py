"""What ends a training that would be in vain: observers whose errors count."""

from __future__ import annotations

from mtframe.hooks import Hooks
from mtframe.recipe import Recipe

from ._borrowed import BorrowedLabels
from ._unreadable import UnreadableImages


def guards(recipe: Recipe, due: int) -> Hooks:
    """The guards of every training; an error of an observer that is registered with them ends it too.

    Args:
        recipe: The resolved recipe.
        due: The step by which tasks that borrow images must have seen a label.
    """
    registered = Hooks(strict=True)
    lenders = {task: lender for task in recipe.trained if (lender := recipe.tasks[task].images)}
    # The one that was registered last is called first.
    registered.register(BorrowedLabels(lenders, due), "borrowed labels")
    registered.register(UnreadableImages(recipe.train.max_unreadable), "unreadable images")
    return registered
