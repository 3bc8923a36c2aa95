"""Samples, placements, batches, image reading and the loader that mixes tasks."""

from ._images import Header as Header
from ._images import Upright as Upright
from ._images import decode_image as decode_image
from ._images import read_header as read_header
from ._images import read_image as read_image
from ._images import read_map as read_map
from ._joined import WithTargetsOf as WithTargetsOf
from ._loader import MixedBatches as MixedBatches
from ._loader import Source as Source
from ._loader import load as load
from ._names import Names as Names
from ._placement import Inputs as Inputs
from ._placement import Placement as Placement
from ._placement import covers as covers
from ._placement import shares as shares
from ._sample import Batch as Batch
from ._sample import DataInfo as DataInfo
from ._sample import DecodeSize as DecodeSize
from ._sample import Sample as Sample
from ._sample import to_uint8 as to_uint8
from ._split import SplitBatches as SplitBatches
from ._split import evaluation_batch as evaluation_batch
from ._split import inputs_of as inputs_of
from ._viewers import Viewer as Viewer
from ._viewers import exact_inputs as exact_inputs
from ._viewers import make_inputs as make_inputs
