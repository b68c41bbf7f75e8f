"""Pushes to tables in the log come back as they were written, in whatever place they lie."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from glintpy.protocol.messages_tables import ASSIGN, REMOVE, UPDATE
from glintpy.storage.log_keys import KeysRecord
from glintpy.storage.log_records import OutcomeRecord, decode, is_undone_by

SESSION = bytes(range(16))


@pytest.mark.parametrize(
    ("keys", "values", "action", "array"),
    [
        (np.array([5, -7], np.int64), np.ones((2, 3), np.float32), UPDATE, 0),
        (np.array([2**64 - 1], np.uint64), np.ones((1, 3), np.float64), ASSIGN, 2),
        (np.array([5, 6, 7], np.int64), np.arange(3, dtype=np.uint32), ASSIGN, 3),
        (np.array([5], np.int64), None, REMOVE, 0),
        (np.empty(0, np.int64), np.empty((0, 3), np.float16), UPDATE, 0),
    ],
)
def test_a_record_comes_back_as_it_was(
    keys: NDArray[Any], values: NDArray[Any] | None, action: int, array: int
) -> None:
    record = KeysRecord(SESSION, 2**40, 9, action, array, keys, values)
    found = decode(record.KIND, memoryview(b"".join(bytes(piece) for piece in record.body())))
    assert isinstance(found, KeysRecord)
    assert (found.session, found.sequence, found.model_id) == (SESSION, 2**40, 9)
    assert (found.action, found.array) == (action, array)
    assert found.keys.dtype == keys.dtype
    assert found.keys.tolist() == keys.tolist()
    if values is None:
        assert found.values is None
    else:
        assert found.values is not None
        assert (found.values.dtype, found.values.shape) == (values.dtype, values.shape)
        assert found.values.tolist() == values.tolist()


def test_the_refusal_right_behind_it_voids_it() -> None:
    record = KeysRecord(SESSION, 7, 9, REMOVE, 0, np.empty(0, np.int64), None)
    assert is_undone_by(record, OutcomeRecord(SESSION, 7, 21), number=3)
    assert not is_undone_by(record, OutcomeRecord(SESSION, 8, 21), number=3)
