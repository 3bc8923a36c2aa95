"""The kinds of component and what each must give: the contract with plugin authors.

A component is a class and one line under its kind's entry-point group in `pyproject.toml`. Parameters of its
constructor before `*` are wired by the framework, by name; those after `*` are the recipe's options. A component
asks only for what it needs: each kind lists what can be wired.

The protocols are structural: a class fits without inheriting anything. What observes a training (kind `hooks`) has no
protocol but its hooks, `mtframe.hooks.HookSpecs`. No torch is imported here.

Each thing that a component may do beyond that has a small protocol: its kind's `abilities`.
"""

from ._any import DescribesMembers as DescribesMembers
from ._any import Family as Family
from ._any import HasExampleMember as HasExampleMember
from ._any import HasExamples as HasExamples
from ._any import HasNotes as HasNotes
from ._any import Migrates as Migrates
from ._data import AsksDataset as AsksDataset
from ._data import ChoosesGalleryThresholds as ChoosesGalleryThresholds
from ._data import ChoosesThresholds as ChoosesThresholds
from ._data import Dataset as Dataset
from ._data import Downloads as Downloads
from ._data import EvaluatesAs as EvaluatesAs
from ._data import ExplainsGaps as ExplainsGaps
from ._data import HasDetails as HasDetails
from ._data import KnowsOutside as KnowsOutside
from ._data import LabelsImages as LabelsImages
from ._data import Metric as Metric
from ._data import MixesImages as MixesImages
from ._data import OrdersEpochs as OrdersEpochs
from ._data import Recognises as Recognises
from ._data import ReportsOmissions as ReportsOmissions
from ._data import Samples as Samples
from ._data import Synthesizes as Synthesizes
from ._data import Transform as Transform
from ._model import Backbone as Backbone
from ._model import BuiltForSize as BuiltForSize
from ._model import FeatureSpec as FeatureSpec
from ._model import FollowsProgress as FollowsProgress
from ._model import HasColourOrder as HasColourOrder
from ._model import Head as Head
from ._model import Loss as Loss
from ._model import MergesViews as MergesViews
from ._model import NamesLayers as NamesLayers
from ._model import NamesShared as NamesShared
from ._model import Sharing as Sharing
from ._model import TakesOver as TakesOver
from ._model import TellsPretraining as TellsPretraining
from ._survey import FINDINGS as FINDINGS
from ._survey import Finding as Finding
from ._survey import InspectsFiles as InspectsFiles
from ._survey import KeepsFiles as KeepsFiles
from ._survey import LabelsTakeLong as LabelsTakeLong
from ._survey import PlacesWhole as PlacesWhole
from ._survey import ReadsLabels as ReadsLabels
from ._survey import Severity as Severity
from ._survey import Survey as Survey
from ._survey import Surveys as Surveys
from ._survey import TellsUnlearnable as TellsUnlearnable
from ._table import KINDS as KINDS
from ._table import Kind as Kind
from ._table import members_of as members_of
from ._target import ChecksForm as ChecksForm
from ._target import Embeds as Embeds
from ._target import RatesPredictions as RatesPredictions
from ._target import Target as Target
from ._target import WritesFiles as WritesFiles
from ._training import Balancer as Balancer
from ._training import CountsFailures as CountsFailures
from ._training import GradientBalancer as GradientBalancer
from ._training import GradientCombiner as GradientCombiner
from ._training import KeepsState as KeepsState
from ._training import KnowsPresent as KnowsPresent
from ._training import Preset as Preset
from ._training import Schedule as Schedule
from ._training import WeighsHeads as WeighsHeads
