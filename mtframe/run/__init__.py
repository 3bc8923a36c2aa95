"""A run's folder: what is in it, who may write it, and how damage to it is noticed."""

from mtframe._trust import agree as agree

from ._checkpoint import KEPT as KEPT
from ._checkpoint import LAST as LAST
from ._checkpoint import STATE as STATE
from ._checkpoint import Checkpoint as Checkpoint
from ._checkpoint import read_weights as read_weights
from ._files import is_step as is_step
from ._files import read_table as read_table
from ._files import write_text as write_text
from ._folder import RunFolder as RunFolder
from ._folder import trust as trust
from ._learned import read_learned as read_learned
from ._learned import write_learned as write_learned
from ._weights import check_finite as check_finite
from ._weights import check_fit as check_fit
from ._weights import take_weights as take_weights
