"""Which tasks belong together: inter-task affinity by lookahead, groups, and where to branch."""

from ._groups import Group as Group
from ._groups import Grouping as Grouping
from ._groups import best_groupings as best_groupings
from ._groups import check_count as check_count
from ._groups import choose as choose
from ._lookahead import Affinity as Affinity
from ._lookahead import Means as Means
from ._lookahead import estimate_affinity as estimate_affinity
from ._lookahead import lookahead as lookahead
