"""Which tasks belong together: inter-task affinity by lookahead, groups, and where to branch."""

from ._estimate import estimate_affinity as estimate_affinity
from ._groups import Group as Group
from ._groups import Grouping as Grouping
from ._groups import best_groupings as best_groupings
from ._groups import check_count as check_count
from ._groups import choose as choose
from ._lookahead import lookahead as lookahead
from ._means import Affinity as Affinity
from ._means import Means as Means
