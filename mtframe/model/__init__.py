"""The multi-task model, sharing schemes, feature pyramids and BatchNorm policies."""

from ._batchnorm import STATISTICS as STATISTICS
from ._batchnorm import BatchNormPolicy as BatchNormPolicy
from ._batchnorm import GroupStatistics as GroupStatistics
from ._batchnorm import apply_batchnorm_policy as apply_batchnorm_policy
from ._batchnorm import freeze_statistics as freeze_statistics
from ._batchnorm import split_statistics as split_statistics
from ._cost import Cost as Cost
from ._cost import TaskCost as TaskCost
from ._cost import cost_of as cost_of
from ._frozen import freeze as freeze
from ._layers import Layers as Layers
from ._multitask import MultiTaskModel as MultiTaskModel
from ._passes import PerPass as PerPass
from ._pyramid import FeaturePyramid as FeaturePyramid
from ._pyramid import SimplePyramid as SimplePyramid
from ._pyramid import group_norm as group_norm
from ._rows import current_rows as current_rows
from ._rows import rows_of as rows_of
from ._sharing import Network as Network
from ._sharing import by_task as by_task
from ._stages import StageEnd as StageEnd
from ._stages import backbones_in as backbones_in
from ._stages import stage_ends as stage_ends
from ._stagewise import Stagewise as Stagewise
from ._stagewise import StagewisePass as StagewisePass
