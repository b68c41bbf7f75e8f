"""What a log says survives its bytes, whatever is selected and of whatever dtype."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest

from glintpy.errors import RemoteProtocolError
from glintpy.protocol import dtypes
from glintpy.protocol.selection import Selection, slices_of
from glintpy.storage.log_records import (
    AdvancedRecord,
    DestroyedRecord,
    EndedRecord,
    MadeRecord,
    OpenedRecord,
    OutcomeRecord,
    PushRecord,
    Record,
    StartedRecord,
    VoidRecord,
    decode,
    is_undone_by,
)

SESSION, OTHER = bytes(range(16)), bytes(16)


def again(record: Record) -> Record:
    body = b"".join(bytes(piece) for piece in record.body())
    return decode(record.KIND, memoryview(bytearray(body)))


def push(selection: Selection, values: np.ndarray, *, assign: bool = False, sequence: int = 9) -> PushRecord:
    return PushRecord(SESSION, sequence, 2**40, selection, values, assign)


SELECTIONS = {
    "rows": (Selection(np.array([3, 1, 1], np.int64)), (3, 4)),
    "rows of few": (Selection(np.array([3, 1, 1], np.uint32)), (3, 4)),
    "slices": (Selection(slices_of((0, 5, 2), (7, 8, 1))), (4, 4)),
    "rows and columns": (Selection(np.array([3], np.uint32), np.array([1, 2], np.int64)), (1, 2)),
    "rows and slices": (Selection(np.array([3, 4, 5], np.uint32), slices_of((0, 2, 1))), (3, 2)),
    "elements": (Selection(np.array([3, 3, 4], np.uint32), np.array([1, 2, 0], np.uint32), True), (3,)),
    "of a vector": (Selection(np.array([3, 1, 1], np.uint32)), (3,)),
    "nothing": (Selection(np.empty(0, np.int64)), (0, 4)),
    "no slices": (Selection(slices_of()), (0,)),
}


@pytest.mark.parametrize("name", SELECTIONS)
@pytest.mark.parametrize("dtype", dtypes.NAMES)
def test_a_push_comes_back_as_it_was(name: str, dtype: str, seed: int) -> None:
    selection, shape = SELECTIONS[name]
    values = np.random.default_rng(seed).integers(0, 2, shape).astype(dtypes.BY_NAME[dtype])
    record = push(selection, values, assign=dtype == "float32")
    found = again(record)
    assert isinstance(found, PushRecord)
    assert (found.session, found.sequence, found.model_id) == (SESSION, 9, 2**40)
    assert found.assign is record.assign
    assert found.values.dtype == values.dtype
    np.testing.assert_array_equal(found.values, values)
    assert found.selection.paired is selection.paired
    for axis, before in ((found.selection.rows, selection.rows), (found.selection.cols, selection.cols)):
        if before is None:
            assert axis is None
        else:
            assert axis is not None
            assert (axis.dtype, axis.shape) == (before.dtype, before.shape)
            np.testing.assert_array_equal(axis, before)
            assert axis.flags.aligned
    assert found.values.flags.aligned


@pytest.mark.parametrize(
    "record",
    [
        OutcomeRecord(SESSION, 2**50, 255),
        OpenedRecord(SESSION, OTHER),
        EndedRecord(SESSION),
        AdvancedRecord(SESSION, 2**50),
        MadeRecord(
            {"model_id": 3, "spec": {"name": "m\N{GREEK SMALL LETTER MU}"}, "extents": [[0, 1, 2, 3]]}
        ),
        DestroyedRecord(2**50),
        VoidRecord(2**50),
        StartedRecord({"server_id": "a", "incarnation": 3}),
    ],
    ids=lambda record: type(record).__name__,
)
def test_every_other_record_comes_back_as_it_was(record: Record) -> None:
    found = again(record)
    assert (type(found), asdict(found)) == (type(record), asdict(record))


def test_a_kind_of_a_later_version_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="kind 99"):
        decode(99, memoryview(b""))


def test_only_the_right_record_right_behind_undoes_another() -> None:
    record = push(Selection(np.array([1])), np.zeros((1, 4)))
    assert is_undone_by(record, OutcomeRecord(SESSION, 9, 3), number=5)
    assert not is_undone_by(record, OutcomeRecord(SESSION, 10, 3), number=5)
    assert not is_undone_by(record, OutcomeRecord(OTHER, 9, 3), number=5)
    assert is_undone_by(record, VoidRecord(5), number=5)
    assert not is_undone_by(record, VoidRecord(4), number=5)
    assert not is_undone_by(record, None, number=5)
    assert is_undone_by(OpenedRecord(SESSION, OTHER), VoidRecord(5), number=5)
    assert not is_undone_by(OpenedRecord(SESSION, OTHER), OutcomeRecord(SESSION, 9, 3), number=5)
