"""Words that say nothing about a text's subject; knows nothing of texts or counts."""

from __future__ import annotations

import builtins
import keyword

__all__ = ["STOP_WORDS"]

_ENGLISH = """
about above after again against all almost already also although always among and another any anyway are
aren around because been before being below between both but can cannot could couldn did didn does doesn
doing don done down during each either else enough etc even ever every few first for from further get gets
getting give given gives goes going got had has hasn have haven having hence her here him his how however
into isn its itself just know last least less let like made make makes making many may maybe might more most
much must need needed needs neither never next non nor not nothing now off often one ones only onto other
others otherwise our out over own perhaps put rather really same say says see seen several shall she should
shouldn since some something sometimes still such sure take taken takes than that the their them then there
therefore these they thing things this those though through thus together too toward two under unless until
upon use used useful user uses using usually various very want wants was wasn way ways well were weren what
whatever when where whether which while who whole whom whose why will within without won would wouldn yet
you your
"""

_PYTHON = """
self cls args kwargs kwds arg kwarg init main none true false def return import todo xxx note
param params returns raises raise raised usr bin env utf coding copyright author python module
"""

STOP_WORDS: frozenset[str] = frozenset(
    {*_ENGLISH.split(), *_PYTHON.split()}
    | {word.lower() for word in (*keyword.kwlist, *keyword.softkwlist)}
    | {name for name in dir(builtins) if name.islower() and not name.startswith("_")}
)
"""English function words, Python's keywords and the names of its built-in functions, in lower case."""
