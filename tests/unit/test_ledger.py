"""A ledger knows of each push whether it is in once, and says so with numbers; made-up servers, then real ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import glintpy
from glintpy.testing.ledger import Account, Ledger, Outcome, Record, Violation
from glintpy.testing.ledger_audit import Audit, Rules

SERVER_OF_ROW = np.array([0, 0, 1, 1, 2, 2])
NUM_PUSHES = 300


def rules_of(seed: int) -> Rules:
    return Rules(seed, SERVER_OF_ROW, width=3)


def applied(rules: Rules, times: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the ledger's cells and value cells after so many applications of each push."""
    numbers = np.arange(len(times))
    cells = rules.touches(numbers) * times
    return cells, np.repeat((cells * rules.values(numbers)).sum(axis=1)[:, np.newaxis], rules.width, axis=1)


def audited(
    rules: Rules, outcomes: NDArray[np.uint8], cells: NDArray[np.int64], values: NDArray[np.int64]
) -> Audit:
    audit = Audit("made up", rules.seed)
    for start in range(0, len(outcomes), 77):  # in blocks, as a large one is read
        block = slice(start, start + 77)
        audit.add_block(rules, worker=0, outcomes=outcomes[block], first=start, cells=cells[:, block])
    audit.add_values(values)
    return audit


def all_applied() -> NDArray[np.uint8]:
    return np.full(NUM_PUSHES, Outcome.APPLIED, dtype=np.uint8)


def test_what_a_push_does_follows_from_its_number_and_the_seed(seed: int) -> None:
    rules, numbers = rules_of(seed), np.arange(20_000)
    touches, values = rules.touches(numbers), rules.values(numbers)
    assert np.array_equal(touches, rules_of(seed).touches(numbers))
    assert not np.array_equal(touches, rules_of(seed + 1).touches(numbers))
    assert np.array_equal(touches[:, 700:800], rules.touches(numbers[700:800]))
    assert (values.min(), values.max()) == (1, 1000)
    # One row, both rows of a server, or all of them; and no row is left out.
    assert set(np.unique(touches.sum(axis=0))) == {1, 2, 6}
    assert np.all(touches.mean(axis=1) > 0.3)


@given(
    outcomes=st.lists(
        st.sampled_from([Outcome.APPLIED, Outcome.REFUSED, Outcome.UNKNOWN, Outcome.NOT_ISSUED])
    ),
    source=st.randoms(use_true_random=False),
)
def test_whatever_the_guarantees_allow_holds(outcomes: list[Outcome], source: st.DataObject) -> None:
    rules = rules_of(5)
    allowed = {Outcome.APPLIED: [1], Outcome.UNKNOWN: [0, 1]}
    times = np.array(
        [source.choice(allowed.get(outcome, [0])) for outcome in outcomes],  # type: ignore[attr-defined]
        dtype=np.int64,
    )
    audit = audited(rules, np.array(outcomes, dtype=np.uint8), *applied(rules, times))
    assert audit.holds, audit
    assert audit.num_applied == outcomes.count(Outcome.APPLIED)
    assert audit.num_unknown == outcomes.count(Outcome.UNKNOWN)
    assert audit.num_issued == len(outcomes) - outcomes.count(Outcome.NOT_ISSUED)


@pytest.mark.parametrize(
    ("outcome", "times", "kind"),
    [
        (Outcome.APPLIED, 0, "num_lost"),
        (Outcome.APPLIED, 2, "num_doubled"),
        (Outcome.UNKNOWN, 2, "num_doubled"),
        (Outcome.UNTOLD, 3, "num_doubled"),
        (Outcome.REFUSED, 1, "num_strays"),
        (Outcome.NOT_ISSUED, 1, "num_strays"),
        (Outcome.APPLIED, -1, "num_strays"),
    ],
)
def test_a_push_that_is_in_too_often_or_too_seldom_is_found(
    seed: int, outcome: Outcome, times: int, kind: str
) -> None:
    outcomes, in_times = all_applied(), np.ones(NUM_PUSHES, dtype=np.int64)
    outcomes[123], in_times[123] = outcome, times
    rules = rules_of(seed)
    audit = audited(rules, outcomes, *applied(rules, in_times))
    assert not audit.holds
    assert getattr(audit, kind) == 1
    kinds = ("num_lost", "num_doubled", "num_strays", "num_torn")
    assert sum(getattr(audit, name) for name in kinds) == 1
    assert f"push 123 (worker 0, {outcome.name.lower().replace('_', ' ')}) is in {times} times" in str(audit)
    assert f"seed {seed}" in str(audit)


def test_one_lost_and_another_doubled_are_found_though_a_sum_would_hide_it(seed: int) -> None:
    rules = rules_of(seed)
    alike = np.flatnonzero(rules.touches(np.arange(NUM_PUSHES)).all(axis=0))[:2]
    times = np.ones(NUM_PUSHES, dtype=np.int64)
    times[alike] = [0, 2]
    audit = audited(rules, all_applied(), *applied(rules, times))
    assert (audit.num_lost, audit.num_doubled, audit.num_wrong_cells) == (1, 1, 12)


def test_a_push_may_be_in_on_some_servers_only_if_its_outcome_is_unknown(seed: int) -> None:
    rules, outcomes = rules_of(seed), all_applied()
    number = int(np.flatnonzero(rules.touches(np.arange(NUM_PUSHES)).all(axis=0))[0])
    cells, _ = applied(rules, np.ones(NUM_PUSHES, dtype=np.int64))
    cells[:2, number] = 0  # not on the first server
    values = (cells * rules.values(np.arange(NUM_PUSHES))).sum(axis=1)[:, np.newaxis].repeat(3, axis=1)
    assert audited(rules, outcomes, cells, values).num_lost == 1
    outcomes[number] = Outcome.UNKNOWN
    audit = audited(rules, outcomes, cells, values)
    assert audit.holds, audit
    assert audit.num_unknown_in == 1
    cells[0, number] = 1  # and now on one of the first server's rows: never, in no order
    values[0] += rules.values(np.array([number]))[0]
    audit = audited(rules, outcomes, cells, values)
    assert audit.num_torn == 1
    assert not audit.holds


def test_a_sum_that_the_pushes_do_not_explain_is_found(seed: int) -> None:
    rules = rules_of(seed)
    cells, values = applied(rules, np.ones(NUM_PUSHES, dtype=np.int64))
    values[4, 2] += 1
    audit = audited(rules, all_applied(), cells, values)
    assert audit.num_wrong_cells == 1
    assert "value cell 2 of row 4" in audit.first


# --- on servers -------------------------------------------------------------------------------------------


@pytest.fixture
def cluster() -> Iterator[glintpy.LocalCluster]:
    with glintpy.LocalCluster(2, scheme="local") as cluster:
        yield cluster


@pytest.fixture
def client(cluster: glintpy.LocalCluster) -> Iterator[glintpy.Client]:
    with cluster.client() as client:
        yield client


def filled(account: Account) -> Record:
    """Make all pushes of an account, with reads between them."""
    while account.num_left:
        account.push()
        if account.num_left % 20 == 0:
            account.read()
    return account.record()


def test_several_clients_share_a_ledger_by_its_name(
    client: glintpy.Client, seed: int, tmp_path: Path
) -> None:
    with Ledger.create(client, num_workers=3, num_pushes=100, name="shared", seed=seed) as ledger:
        records = []
        for number in range(2):
            with glintpy.Client(client.address) as other:
                filled(Ledger.open(other, "shared").worker(number)).save(tmp_path / f"{number}")
            records.append(Record.load(tmp_path / f"{number}"))
        audit = ledger.check(records)
        assert (audit.num_issued, audit.num_applied, audit.num_unknown) == (200, 200, 100)
        assert audit.num_unknown_in == 0  # the third one has made none, and left no record to say so
        idle = ledger.worker(2).record()
        assert ledger.check([*records, idle]).num_unknown == 0
    assert client.models() == []


def test_pushes_of_a_worker_without_a_record_may_be_in_or_not_but_once(
    client: glintpy.Client, seed: int
) -> None:
    with Ledger.create(client, num_workers=1, num_pushes=50, seed=seed) as ledger:
        account = ledger.worker(0)
        for _ in range(20):
            account.push()
        account.record()
        audit = ledger.check([])
        assert (audit.num_unknown, audit.num_unknown_in) == (50, 20)


def test_what_others_add_to_a_ledger_is_a_violation(client: glintpy.Client, seed: int) -> None:
    with Ledger.create(client, num_workers=1, num_pushes=50, width=4, seed=seed) as ledger:
        record = filled(ledger.worker(0))
        ledger.check([record])
        row = int(np.flatnonzero(ledger.rules.touches(np.array([7]))[:, 0])[0])
        ledger.matrix.push([row], 1, cols=[4 + 7]).result()
        with pytest.raises(Violation, match=rf"1 doubled.*push 7 .* is in 2 times.*seed {seed}\)"):
            ledger.check([record])
        ledger.matrix.push([row], -2, cols=[4 + 7]).result()
        with pytest.raises(Violation, match="1 lost"):
            ledger.check([record])


def test_reads_find_what_is_torn_and_what_has_gone(client: glintpy.Client, seed: int) -> None:
    with Ledger.create(client, num_workers=1, num_pushes=50, width=4, seed=seed) as ledger:
        account = ledger.worker(0)
        filled(account)
        rows = range(ledger.matrix.num_rows)
        ledger.matrix.push(None, [[-1, -1, -1, -1]] * len(rows), cols=slice(0, 4)).result()
        for _ in rows:
            with pytest.raises(Violation, match="was seen or acknowledged before"):
                account.read()
        ledger.matrix.push(None, [[1, 1, 1, 2]] * len(rows), cols=slice(0, 4)).result()
        for _ in rows:
            with pytest.raises(Violation, match="is torn"):
                account.read()


def test_pushes_that_fail_are_recorded_as_what_their_future_says(
    cluster: glintpy.LocalCluster, client: glintpy.Client, seed: int
) -> None:
    with Ledger.create(client, num_workers=1, num_pushes=40, seed=seed) as ledger:
        account = ledger.worker(0)
        futures = [account.push() for _ in range(10)]
        client.flush()
        cluster.kill_server(1)
        hurried = ledger.matrix.with_options(timeout_s=0.2)
        futures += [account.push(hurried) for _ in range(20)]
        record = account.record()
        said = [Outcome.APPLIED if future.exception() is None else Outcome.REFUSED for future in futures]
        for number, future in enumerate(futures):
            if getattr(future.exception(), "outcome", "none") != "none":
                said[number] = Outcome.UNKNOWN
        assert record.outcomes.tolist() == said + [Outcome.NOT_ISSUED] * 10
        assert set(said[:10]) == {Outcome.APPLIED}
        assert set(said[10:]) > {Outcome.APPLIED}  # those that touch the other server only


def test_mistakes_are_told_with_their_numbers(client: glintpy.Client) -> None:
    for wrong in ({"num_workers": 0}, {"num_pushes": 0}, {"width": 0}, {"rows_per_server": 0}, {"seed": -1}):
        with pytest.raises(glintpy.ConfigError, match=next(iter(wrong))):
            Ledger.create(client, **{"num_workers": 1, "num_pushes": 1, **wrong})  # type: ignore[arg-type]
    assert client.models() == []
    with Ledger.create(client, num_workers=1, num_pushes=1) as ledger:
        with pytest.raises(glintpy.ConfigError, match="workers 0 to 0"):
            ledger.worker(1)
        with pytest.raises(glintpy.ModelExists):
            Ledger.create(client, num_workers=1, num_pushes=1)
        account = ledger.worker(0)
        account.push()
        with pytest.raises(glintpy.ConfigError, match="all its 1 pushes"):
            account.push()
        ledger.check([account.record()])
    client.vector(3, name="other")
    client.vector(3, name="other.about")
    with pytest.raises(glintpy.ConfigError, match="no ledger"):
        Ledger.open(client, "other")
