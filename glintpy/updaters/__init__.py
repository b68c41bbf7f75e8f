"""How a pushed value meets the stored one; knows no storage and no message.

An updater is a name, numbers, slots and a formula (``base``), one file for each or for two that are alike. Numbers may
follow a schedule (``schedules``). ``names`` finds them. The arrays are the servers', and so are the compiled loops, see
``storage/kernels.py``.
"""

from __future__ import annotations

from glintpy.updaters import schedules
from glintpy.updaters.adagrad import Adagrad
from glintpy.updaters.adam import Adam, AdamW
from glintpy.updaters.add import Add
from glintpy.updaters.assign import Assign, Total
from glintpy.updaters.base import Slot, Updater, arithmetic_dtype
from glintpy.updaters.dcasgd import DCASGD
from glintpy.updaters.extremes import Max, Min
from glintpy.updaters.ftrl import Ftrl
from glintpy.updaters.gradient import GradientUpdater
from glintpy.updaters.mean import Mean
from glintpy.updaters.momentum import Momentum, Nesterov
from glintpy.updaters.names import bring, is_known, name_of, named
from glintpy.updaters.rmsprop import RMSprop
from glintpy.updaters.sgd import SGD

__all__ = [
    "DCASGD",
    "SGD",
    "Adagrad",
    "Adam",
    "AdamW",
    "Add",
    "Assign",
    "Ftrl",
    "GradientUpdater",
    "Max",
    "Mean",
    "Min",
    "Momentum",
    "Nesterov",
    "RMSprop",
    "Slot",
    "Total",
    "Updater",
    "arithmetic_dtype",
    "bring",
    "is_known",
    "name_of",
    "named",
    "schedules",
]
