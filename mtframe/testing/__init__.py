"""The conformance kit: whether a distribution's components keep their kind's contract.

A plugin's whole contract test is

    from mtframe.testing import conformance

    test_contract = conformance("kite-head")
"""

from ._conformance import conformance as conformance
from ._kit import Case as Case
from ._kit import Kit as Kit
from ._violation import Skip as Skip
from ._violation import Violation as Violation
