"""Balancers: what the tasks' losses or gradients weigh against each other."""

from ._aligned import AlignedMTL as AlignedMTL
from ._bargaining import FairGrad as FairGrad
from ._bargaining import NashMTL as NashMTL
from ._dwa import DWA as DWA
from ._famo import FAMO as FAMO
from ._graddrop import GradDrop as GradDrop
from ._hull import MGDA as MGDA
from ._hull import CAGrad as CAGrad
from ._imtl_g import ImtlG as ImtlG
from ._learned import ImtlL as ImtlL
from ._learned import Uncertainty as Uncertainty
from ._logarithms import GeometricMean as GeometricMean
from ._logarithms import LogSum as LogSum
from ._norms import GradientNorm as GradientNorm
from ._norms import GradNorm as GradNorm
from ._random import Random as Random
from ._stch import STCH as STCH
from ._sum import Sum as Sum
from ._surgery import GradVac as GradVac
from ._surgery import PCGrad as PCGrad
from ._torchjd import TorchJD as TorchJD
from ._upgrad import UPGrad as UPGrad
