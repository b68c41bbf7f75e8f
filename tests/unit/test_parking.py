"""Pulls that wait for a round are kept once each, in order, and not for ever."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from glintpy.actors import parking
from glintpy.actors.parking import FORGOTTEN_S, Parked
from glintpy.protocol.messages import Pull
from glintpy.protocol.selection import slices_of


def a_pull(request_id: int, *, model_id: int = 1, rows: tuple[int, int] = (0, 10), part: int = 0) -> Pull:
    return Pull(request_id, bytes(16), 1, 0, model_id, 1, part, 0, 1, 0, False, slices_of((*rows, 1)), None)


def taken(parked: Parked, model_id: int = 1, rows: range | None = None) -> list[tuple[bytes, int]]:
    return [(peer, pull.request_id) for peer, pull in parked.take(model_id, rows)]


def test_what_waits_for_a_model_is_taken_once_in_order() -> None:
    parked = Parked()
    for number in (3, 1, 2):
        parked.add(b"a", a_pull(number), 0.0)
    parked.add(b"a", a_pull(9, model_id=2), 0.0)
    assert (taken(parked), taken(parked)) == ([(b"a", 3), (b"a", 1), (b"a", 2)], [])
    assert parked.num == 1


def test_only_what_may_wait_for_some_rows_is_taken() -> None:
    parked = Parked()
    parked.add(b"a", a_pull(1, rows=(0, 5)), 0.0)
    parked.add(b"a", a_pull(2, rows=(5, 9)), 0.0)
    parked.add(b"a", replace(a_pull(3), rows=np.array([2, 40])), 0.0)
    assert taken(parked, rows=range(5, 6)) == [(b"a", 2), (b"a", 3)]
    assert taken(parked, rows=range(9, 40)) == []
    assert taken(parked) == [(b"a", 1)]


def test_whoever_asks_again_is_one_and_answered_where_it_is_now() -> None:
    parked = Parked()
    parked.add(b"before", a_pull(1), 0.0)
    parked.add(b"before", a_pull(1, part=1), 0.0)
    parked.add(b"after", a_pull(1), 1.0)
    assert parked.num == 2
    assert taken(parked) == [(b"before", 1), (b"after", 1)]


def test_what_nobody_asks_for_again_is_forgotten() -> None:
    parked = Parked()
    parked.add(b"a", a_pull(1), 0.0)
    parked.add(b"a", a_pull(2), 1.0)
    parked.forget(FORGOTTEN_S + 0.5)
    assert (parked.num, taken(parked)) == (1, [(b"a", 2)])
    parked.forget(0.0)
    assert parked.num == 0


def test_too_many_push_out_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parking, "PARKED_MAX", 2)
    parked = Parked()
    for number in range(4):
        parked.add(b"a", a_pull(number), 0.0)
    assert (parked.num, taken(parked)) == (2, [(b"a", 2), (b"a", 3)])
