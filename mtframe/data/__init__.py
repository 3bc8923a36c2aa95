"""Samples, batches, image reading and the loader that mixes tasks."""

from ._images import IMAGE_SUFFIXES as IMAGE_SUFFIXES
from ._images import decode_image as decode_image
from ._images import read_image as read_image
from ._joined import WithTargetsOf as WithTargetsOf
from ._loader import MixedBatches as MixedBatches
from ._loader import Source as Source
from ._loader import SplitBatches as SplitBatches
from ._loader import transform_batch as transform_batch
from ._sample import Batch as Batch
from ._sample import DataInfo as DataInfo
from ._sample import DecodeSize as DecodeSize
from ._sample import Geometry as Geometry
from ._sample import Sample as Sample
from ._sample import to_uint8 as to_uint8
