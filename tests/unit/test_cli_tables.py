"""What people see of a cluster: every server, client and model once, and no line wider than their window."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import pytest
from rich.console import Console

from glintpy.cli import tables
from glintpy.cli.look import document_of
from glintpy.cli.manage import forgotten
from glintpy.models.naming import KINDS, generated_name
from glintpy.protocol.spec import ModelSpec

OWN = (77, "here")


def server(name: str, state: str = "alive", **holds: Any) -> dict[str, Any]:
    held = {
        "up_s": 200.0,
        "models": [holding(1)],
        "model_bytes": 3 * 2**30,
        "memory_limit": 2**34,
        "requests": 1_234_567,
        "pulls": 1_000_000,
        "pushes": 234_567,
        "bytes_in": 5 * 2**20,
        "bytes_out": 7 * 2**20,
        "backlog_bytes": 0,
    } | holds
    return {
        "id": f"id-{name}",
        "name": name,
        "address": "tcp://127.0.0.1:40001",
        "state": state,
        "incarnation": 1,
        "pid": 4711,
        "host": "machine",
        "last_beat_s": 0.4,
        "holds": held if state == "alive" else None,
    }


def holding(model_id: int, **changes: Any) -> dict[str, Any]:
    return {"model_id": model_id, "name": "m", "rows": 7, "bytes": 2**20} | changes


def client(name: str, pid: int = 5, host: str = "here") -> dict[str, Any]:
    return {"name": name, "pid": pid, "host": host, "last_beat_s": 0.1}


def model(name: str, age_s: float | None = 10.0, num_cols: int | None = 5) -> dict[str, Any]:
    return {
        "model_id": 1,
        "spec": ModelSpec(name, 1000, num_cols, "float32").to_content(),
        "owners": [0, 1],
        "servers": [["id-a", "tcp://a:1"], ["id-b", "tcp://b:1"]],
        "created": None if age_s is None else 1e9,
        "age_s": age_s,
    }


def group(name: str, *workers: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "workers": workers}


def worker(rank: int, clock: int, waits_for: str | None = None, **changes: Any) -> dict[str, Any]:
    return {
        "rank": rank,
        "clock": clock,
        "waits_for": waits_for,
        "is_away": False,
        "name": f"worker-{rank}",
        "host": "machine",
        "pid": 4712 + rank,
    } | changes


def state(
    servers: list[Any], clients: list[Any], models: list[Any], groups: Sequence[Any] = ()
) -> dict[str, Any]:
    answer = {
        "cluster_id": "0123456789abcdef",
        "up_s": 11_520.0,
        "address": "tcp://0.0.0.0:5",
        "servers": servers,
        "clients": clients,
        "groups": groups,
        "models": models,
    }
    return document_of(answer, "tcp://127.0.0.1:5", own=OWN)


def shown(document: dict[str, Any], *, width: int = 100) -> str:
    screen = Console(file=io.StringIO(), width=width, highlight=False, markup=False)
    for part in tables.status_tables(document):
        screen.print(part)
    assert isinstance(screen.file, io.StringIO)
    return screen.file.getvalue()


def test_the_first_line_sums_up() -> None:
    text = shown(state([server("a"), server("b", "lost")], [client("job")], [model("m")]))
    first = " ".join(text.split("\n\n")[0].split())
    assert first == (
        "cluster 0123456789abcdef at tcp://127.0.0.1:5, up 3 h 12 min: 1 of 2 servers alive, 1 client, 1 model"
    )


def test_each_server_has_its_state_and_what_it_holds() -> None:
    text = shown(state([server("a"), server("b", "lost"), server("c", "hung")], [], []))
    lines = text.splitlines()
    assert [line.split()[:2] for line in lines if "tcp://127.0.0.1:40001" in line] == [
        ["a", "alive"],
        ["b", "lost"],
        ["c", "hung"],
    ]
    (held,) = (line for line in lines if "1,234,567" in line)
    assert " ".join(held.split()) == "a 1 3 GiB 16 GiB 1,234,567 1,000,000 234,567 5 MiB 7 MiB 0 B"
    assert any(line.split() == ["b", "is", "lost"] for line in lines)


def test_a_server_that_did_not_answer_is_said_to_be_so() -> None:
    silent = server("a") | {"holds": None}
    assert "did not answer" in shown(state([silent], [], []))


def test_servers_are_sorted_as_people_count() -> None:
    text = shown(state([server("server-10"), server("server-9"), server("b")], [], []))
    assert text.index("server-9") < text.index("server-10")


def test_without_servers_it_says_how_to_start_one() -> None:
    assert "glintpy server --master tcp://127.0.0.1:5" in shown(state([], [], []))


def test_the_client_that_asks_is_not_shown() -> None:
    document = state([], [client("status", *OWN), client("same pid elsewhere", OWN[0], "there")], [])
    assert [entry["name"] for entry in document["clients"]] == ["same pid elsewhere"]


def test_models_have_their_shape_size_and_age() -> None:
    document = state([], [], [model("m", 90.0), model("v", None, num_cols=None)])
    assert document["models"][0]["bytes"] == 20_000
    assert document["models"][0]["kind"] == "matrix"
    assert document["models"][1]["shape"] == [1000]
    lines = shown(document).splitlines()
    assert " ".join(lines[-2].split()) == "m matrix 1,000 x 5 float32 19.5 KiB range 2 1 min 30 s"
    assert " ".join(lines[-1].split()) == "v vector 1,000 float32 3.9 KiB range 2 -"


def table(name: str) -> dict[str, Any]:
    spec = ModelSpec(name, 0, 5, "float32", "keyed", keys="int64")
    return model(name) | {"spec": spec.to_content()}


def test_tables_have_the_keys_and_bytes_that_their_servers_hold() -> None:
    other = holding(2, rows=100)
    servers = [server("a", models=[other, holding(1, rows=1200)]), server("b", models=[holding(1, rows=34)])]
    document = state([*servers, server("c")], [], [table("t")])
    assert document["models"][0]["shape"] == [1234, 5]
    assert document["models"][0]["bytes"] == 2 * 2**20
    assert (
        " ".join(shown(document).splitlines()[-1].split()) == "t table 1,234 x 5 float32 2 MiB keyed 2 10 s"
    )


@pytest.mark.parametrize(
    "other",
    [
        server("b", "lost"),
        server("b") | {"holds": None},
        server("b", models=[holding(1, lost=True, rows=0, bytes=0)]),
        server("b", models=[]),
        server("c"),
    ],
    ids=["lost", "silent", "lost part", "without its part", "unknown"],
)
def test_a_table_s_size_is_not_guessed(other: dict[str, Any]) -> None:
    document = state([server("a"), other], [], [table("t")])
    assert document["models"][0]["shape"] == [None, 5]
    assert document["models"][0]["bytes"] is None
    assert " ".join(shown(document).splitlines()[-1].split()) == "t table - x 5 float32 - keyed 2 10 s"


def test_workers_have_their_clock_and_what_they_wait_for() -> None:
    workers = [worker(0, 1200, "clock 1198"), worker(1, 1197), worker(2, 0, is_away=True)]
    lines = shown(state([], [], [], [group("trainers", *workers)])).splitlines()
    assert [" ".join(line.split()) for line in lines[-3:]] == [
        "trainers 0 1,200 clock 1198 worker-0 machine 4712",
        "trainers 1 1,197 - worker-1 machine 4713",
        "trainers 2 0 its connection worker-2 machine 4714",
    ]


def test_long_lists_are_cut_with_a_word_on_the_rest() -> None:
    many = [client(f"job-{number}") for number in range(tables.ROWS_MAX + 12)]
    text = shown(state([server("a")], many, []))
    assert "and 12 more clients: glintpy status --json" in text
    assert f"job-{tables.ROWS_MAX - 1} " in text
    assert f"job-{tables.ROWS_MAX} " not in text


@pytest.mark.parametrize("width", [60, 80, 100])
def test_no_name_is_cut_off_in_a_narrow_window(width: int) -> None:
    name = "a-model-with-a-rather-long-name-" + "x" * 40
    text = shown(state([server("a")], [], [model(name)]), width=width)
    assert max(len(line) for line in text.splitlines()) <= width
    assert "…" not in text


def test_names_are_not_read_as_markup() -> None:
    assert "[red]m[/red]" in shown(state([], [], [model("[red]m[/red]")]))


def test_the_doctor_s_findings_have_their_advice_below() -> None:
    checks = [
        {"check": "numpy", "state": "ok", "found": "2.0", "advice": ""},
        {"check": "libzmq", "state": "fail", "found": "4.1 is too old", "advice": "upgrade"},
    ]
    screen = Console(file=io.StringIO(), width=100)
    screen.print(tables.checks_table(checks))
    assert isinstance(screen.file, io.StringIO)
    lines = [line.split() for line in screen.file.getvalue().splitlines()]
    assert lines == [["ok", "numpy", "2.0"], ["fail", "libzmq", "4.1", "is", "too", "old"], ["->", "upgrade"]]


def test_only_old_models_with_generated_names_are_forgotten() -> None:
    models = [
        model("matrix-0123456789ab", 100.0),
        model("vector-0123456789ab", 100.0),
        model("table-0123456789ab", 100.0),
        model("matrix-0123456789ab", 99.0),
        model("matrix-0123456789ab", None),
        model("matrix-0123456789abc", 100.0),
        model("matrix-0123456789AB", 100.0),
        model("weights", 1e6),
        model("group-0123456789ab", 100.0),
    ]
    expected = [f"{kind}-0123456789ab" for kind in ("matrix", "vector", "table")]
    assert forgotten(models, older_s=100.0) == expected


@pytest.mark.parametrize("kind", KINDS)
def test_a_generated_name_is_known_again(kind: str) -> None:
    first, second = generated_name(kind), generated_name(kind)
    assert first != second
    assert forgotten([model(first, 1.0), model(second, 1.0)], older_s=1.0) == [first, second]
