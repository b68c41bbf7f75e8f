"""A save that doesn't make up its model is refused while it is written, and leaves nothing behind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from glintpy.errors import CheckpointError, DTypeError, ShapeError
from glintpy.protocol.spec import ModelSpec
from glintpy.storage.checkpoint import CheckpointWriter
from glintpy.storage.checkpoint_reader import CheckpointReader

if TYPE_CHECKING:
    from pathlib import Path


def matrix(**changes: Any) -> ModelSpec:
    return ModelSpec(**{"name": "m", "num_rows": 17, "num_cols": 3, "dtype": "float64", **changes})


def test_rows_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with CheckpointWriter(tmp_path, spec=matrix(), num_partitions=2, overwrite=False) as writer:
        part = writer.part(0, num_rows=2, first=0, step=1)
        with pytest.raises(DTypeError, match="float64, not float32"):
            part.write(np.zeros((1, 3), np.float32))
        with pytest.raises(ShapeError, match=r"\(3,\), not \(1, 4\)"):
            part.write(np.zeros((1, 4)))
        with pytest.raises(ShapeError, match="2 rows, not 0 \\+ 3"):
            part.write(np.zeros((3, 3)))
        part.write(np.zeros((1, 3)))
        with pytest.raises(ShapeError, match="has 2 rows; 1 were written"):
            part.close()
        part.write(np.zeros((1, 6))[:, ::2])  # not contiguous
        part.close()
        part.close()
        with pytest.raises(CheckpointError, match="closed"):
            part.write(np.zeros((0, 3)))
        with pytest.raises(CheckpointError, match="begun before"):
            writer.part(0, num_rows=2, first=0, step=1)
        with pytest.raises(CheckpointError, match="outside"):
            writer.part(2, num_rows=2, first=0, step=1)
        with pytest.raises(ShapeError, match="1 of 2 parts were not finished: values 1"):
            writer.commit()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([(3, 0, 1), (3, 2, 1)], "both have row 2"),
        ([(3, 0, 1), (3, 4, 1)], "has rows 4 to 6 by 1; the model has 6"),
        ([(3, 0, 2), (2, 2, 2)], "both have row 2"),
        ([(3, 0, 2), (2, 1, 2)], "the parts have 5 rows; the model has 6"),
        ([(3, 0, 1), (2, 3, 2)], "different steps"),
        ([(3, 0, 1), (3, -1, 1)], "has rows -1 to 1"),
    ],
)
def test_parts_that_do_not_make_up_the_model_are_not_committed(
    tmp_path: Path, parts: list[tuple[int, int, int]], message: str
) -> None:
    spec = matrix(num_rows=6)
    with CheckpointWriter(tmp_path, spec=spec, num_partitions=2, overwrite=False) as writer:
        for partition, (num_rows, first, step) in enumerate(parts):
            with writer.part(partition, num_rows=num_rows, first=first, step=step) as part:
                part.write(np.zeros((num_rows, 3)))
        with pytest.raises(ShapeError, match=message):
            writer.commit()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("rows", [[0, 0], [0, 6], [-1, 0], [1, 2, 3]])
def test_global_rows_that_can_not_be_are_refused(tmp_path: Path, rows: list[int]) -> None:
    spec = matrix(num_rows=6)
    with CheckpointWriter(tmp_path, spec=spec, num_partitions=2, overwrite=False) as writer:
        with pytest.raises(ShapeError):
            writer.part(0, num_rows=2, global_rows=np.array(rows))
        with pytest.raises(ShapeError):
            writer.part(1, num_rows=2, global_rows=np.array([0, 1], np.int32))
        with pytest.raises(ShapeError):
            writer.part(1, num_rows=2)


@pytest.mark.parametrize("num_partitions", [0, -1, 65537])
def test_a_number_of_partitions_that_no_model_has_is_refused(tmp_path: Path, num_partitions: int) -> None:
    with pytest.raises(ShapeError, match=f"1 to 65536 partitions, not {num_partitions}"):
        CheckpointWriter(tmp_path, spec=matrix(), num_partitions=num_partitions, overwrite=False)


def test_a_mixture_of_global_rows_and_steps_is_refused(tmp_path: Path) -> None:
    spec = matrix(num_rows=2)
    with CheckpointWriter(tmp_path, spec=spec, num_partitions=2, overwrite=False) as writer:
        with writer.part(0, num_rows=1, global_rows=np.array([0])) as part:
            part.write(np.zeros((1, 3)))
        with writer.part(1, num_rows=1, first=1, step=1) as part:
            part.write(np.zeros((1, 3)))
        with pytest.raises(ShapeError, match="some parts have global_rows and some have none"):
            writer.commit()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("is_custom", [False, True])
def test_a_part_that_is_withdrawn_may_be_written_anew(tmp_path: Path, is_custom: bool) -> None:
    spec = matrix(num_rows=4, num_cols=None, dtype="int64")
    with CheckpointWriter(tmp_path, spec=spec, num_partitions=2, overwrite=False) as writer:
        for partition, values in [(0, [1, 2]), (1, [9]), (0, [5, 6]), (1, [7, 8])]:
            where: dict[str, Any] = {"first": 2 * partition, "step": 1}
            if is_custom:
                where = {"global_rows": np.arange(2 * partition, 2 * partition + 2)}
            writer.withdraw(partition)
            part = writer.part(partition, num_rows=2, **where)
            part.write(np.array(values))
            if len(values) == 2:
                part.close()
        with pytest.raises(CheckpointError, match="begun before"):
            writer.part(0, num_rows=2, first=0, step=1)
        writer.commit()
    assert len(list(tmp_path.iterdir())) == (5 if is_custom else 3)
    found = {range(2): [5, 6], range(2, 4): [7, 8]}
    for rows, block in CheckpointReader(tmp_path).blocks(1000):
        assert block.tolist() == found[range(int(rows[0]), int(rows[-1]) + 1)]


def test_a_part_that_is_withdrawn_is_missing(tmp_path: Path) -> None:
    with CheckpointWriter(tmp_path, spec=matrix(num_rows=1), num_partitions=1, overwrite=False) as writer:
        with writer.part(0, num_rows=1, first=0, step=1) as part:
            part.write(np.zeros((1, 3)))
        writer.withdraw(0)
        writer.withdraw(0)
        with pytest.raises(ShapeError, match="1 of 1 parts were not finished"):
            writer.commit()
    assert list(tmp_path.iterdir()) == []


def test_a_part_that_is_begun_anew_has_the_rows_that_it_had(tmp_path: Path) -> None:
    spec = matrix(num_rows=4)
    with CheckpointWriter(tmp_path, spec=spec, num_partitions=2, overwrite=False) as writer:
        writer.part(0, num_rows=2, global_rows=np.array([0, 1]))
        writer.withdraw(0)
        with pytest.raises(ShapeError, match="had other global_rows"):
            writer.part(0, num_rows=2, global_rows=np.array([0, 2]))
