"""Rare cases that were once wrong: rows longer than a part, partitioners that look alike, questions asked twice."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import glintpy
from glintpy import config
from glintpy.errors import LocalProtocolError, ModelNotFound, Overloaded
from glintpy.protocol.calls import Call, Failed, Result, Stamp
from glintpy.protocol.messages import BeginCut, Message, Probe, Pull, Report, Welcome
from glintpy.protocol.session import Session
from glintpy.protocol.wire import decode_all
from glintpy.testing.partitioners import TablePartitioner


@pytest.fixture(scope="module")
def client() -> Iterator[glintpy.Client]:
    with glintpy.LocalCluster(2, scheme="local") as cluster, cluster.client() as made:
        yield made


@pytest.mark.parametrize("num_cols", [131_073, 300_000])
def test_rows_longer_than_a_part_are_saved_in_pieces(
    client: glintpy.Client, tmp_path: Path, num_cols: int
) -> None:
    values = np.random.default_rng(1).random((3, num_cols))
    with client.matrix(3, num_cols) as wide:
        wide.push(None, values).result()
        wide.save(str(tmp_path / "wide"))
    with client.load(str(tmp_path / "wide"), partitioner="cyclic") as loaded:
        assert np.array_equal(np.asarray(loaded), values)


def test_what_has_no_rows_and_columns_is_not_iterated_over_by_them(client: glintpy.Client) -> None:
    with client.vector(5) as vector, client.table(2) as table:
        wrong: list[Any] = [vector, table, np.zeros((2, 2))]
        for model in wrong:
            for make in (
                glintpy.RowIterator,
                glintpy.ColumnIterator,
                lambda m: glintpy.RowBlockIterator(m, 2),
            ):
                with pytest.raises(TypeError, match=f"a matrix's, not a {type(model).__name__}'s"):
                    make(model)
        with pytest.raises(TypeError, match="a PushBuffer is for a matrix or a vector, not a BigTable"):
            glintpy.PushBuffer(table)  # type: ignore[arg-type]  # wrong on purpose


def test_two_tables_of_one_size_are_told_apart(client: glintpy.Client) -> None:
    one = TablePartitioner(np.array([0, 1, 0, 1]), 2)
    other = TablePartitioner(np.array([1, 0, 1, 0]), 2)
    with client.vector(4, partitioner=one, name="tables") as made:
        assert client.open("tables", partitioner=TablePartitioner(np.array([0, 1, 0, 1]), 2)) == made
        with pytest.raises(glintpy.ConfigError, match="must put every key where"):
            client.open("tables", partitioner=other)
        with pytest.raises(glintpy.ModelExists, match="partitioner"):
            client.vector(4, partitioner=other, name="tables", exist_ok=True)


def test_an_existing_model_is_not_filled_again(client: glintpy.Client) -> None:
    table = TablePartitioner(np.array([0, 1, 0, 1]), 2)
    with client.vector(4, partitioner=table, init=("uniform", 0, 1), name="filled") as made:
        made.push(None, 5.0).result()
        before = np.asarray(made)
        again = client.vector(4, partitioner=table, init=("uniform", 0, 1), name="filled", exist_ok=True)
        assert again == made
        assert np.array_equal(np.asarray(again), before)


def test_destroying_a_model_that_is_gone_is_an_error_unless_it_was_asked_twice(
    client: glintpy.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = client.vector(3)
    runtime = client._tie.runtime()
    model_id = model._info.model_id
    model.destroy()
    with pytest.raises(ModelNotFound, match=f"destroying 'gone': there is no model {model_id}"):
        runtime.destroy_model(model_id, "gone", timeout_s=5)
    asked = runtime._ask_master

    def asked_twice(*arguments: Any, **options: Any) -> Any:
        future, call = asked(*arguments, **options)
        future.exception()
        call.attempts += 1
        return future, call

    monkeypatch.setattr(runtime, "_ask_master", asked_twice)  # as if the first answer had been lost
    runtime.destroy_model(model_id, "gone", timeout_s=5)


def test_a_server_holds_a_bounded_number_of_moments(client: glintpy.Client) -> None:
    from glintpy.actors.cuts import CUTS_MAX

    with client.vector(3) as model:
        runtime = client._tie.runtime()
        server_id, address = model._info.servers[0]
        runtime.link(server_id, address)

        def begin(request_id: int, stamp: Stamp) -> Message:
            return BeginCut(request_id, stamp.session, stamp.floor, stamp.after, model._info.model_id)

        begun = [
            runtime.ask_server(server_id, begin, model_id=None, timeout_s=5) for _ in range(CUTS_MAX + 1)
        ]
        failures = [future.exception() for future in begun]
        assert isinstance(failures[-1], Overloaded)
        assert failures[:-1] == [None] * CUTS_MAX


def opened_session() -> Session:
    numbers = iter(range(1, 100))
    session = Session(
        client_id=b"c" * 16,
        settings=config.ClientSettings(),
        new_request_id=lambda: next(numbers),
        random_source=random.Random(1),
    )
    session.connected(0.0)
    session.outgoing(0.0)
    session.receive(Welcome(1, 1, "", "s", 1, b"s" * 16, 2**20, 0), 0.0)
    return session


def test_an_idle_session_is_kept_alive() -> None:
    session = opened_session()
    expiry_s = config.ServerSettings().session_expiry_s
    probed_at = []
    for moment in range(0, int(expiry_s), 10):
        session.tick(float(moment))
        for frames in session.outgoing(float(moment)):
            (message,) = decode_all(frames)
            assert isinstance(message, Probe)
            probed_at.append(moment)
            none = np.empty(0, np.uint8)
            session.receive(Report(message.request_id, 2**20, 0, 1, none), float(moment))
    assert probed_at == [600, 1200, 1800, 2400, 3000]


def test_a_call_that_cannot_travel_fails_alone() -> None:
    session = opened_session()
    results: list[Result] = []

    def build(part: int) -> Call:
        rows = np.array([1], dtype=np.int64)
        return Call(
            7,
            lambda stamp: Pull(
                7, stamp.session, stamp.floor, 0, 1, 1, part, 0, 0, 0, paired=False, rows=rows, cols=None
            ),
            results.append,
            part=abs(part),
        )

    session.submit(build(-1))  # no part has such a number
    session.submit(build(2))
    assert len(session.outgoing(0.0)) == 1
    (failed,) = results
    assert isinstance(failed, Failed)
    assert isinstance(failed.error, LocalProtocolError)
    assert failed.fate == "unsent"
