"""Each task's gradient of what tasks share, in the one backward pass of a plain step; what balancers make of them."""

from ._engine import GradientEngine as GradientEngine
from ._engine import Gradients as Gradients
from ._engine import buffers_kept as buffers_kept
from ._measurement import Measurement as Measurement
from ._measurement import Row as Row
from ._measurement import measured_backward as measured_backward
from ._measurement import task_gradients as task_gradients
from ._stages import ALL as ALL
from ._stages import REST as REST
from ._stages import cosine as cosine
from ._stages import names_by_stage as names_by_stage
from ._stages import stage_grams as stage_grams
