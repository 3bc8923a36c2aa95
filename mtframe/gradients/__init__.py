"""Each task's gradient of what tasks share, in the one backward pass of a plain step; what balancers make of them."""

from ._balancing import AnyBalancer as AnyBalancer
from ._balancing import Place as Place
from ._engine import GradientEngine as GradientEngine
from ._engine import GradientObserver as GradientObserver
from ._engine import GradientStep as GradientStep
from ._measurement import Measurement as Measurement
from ._measurement import Row as Row
from ._passes import Gradients as Gradients
from ._stages import ALL as ALL
from ._stages import REST as REST
from ._stages import cosine as cosine
from ._stages import names_by_stage as names_by_stage
from ._stages import stage_grams as stage_grams
from ._trial import buffers_kept as buffers_kept
