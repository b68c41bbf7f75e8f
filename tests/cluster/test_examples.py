"""Every example runs as its readers run it: as a program of its own, here in a small form."""

from __future__ import annotations

import gzip
import os
import re
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest

from examples.sparse.rows import area_under_curve, read_libsvm
from examples.topics.sampler import Priors
from examples.topics.team import Team, WorkerError
from examples.topics.worker import Count, Share, Sweep
from tests.cluster.example_runs import DATA, REPOSITORY, RUN_TIMEOUT_S, command_of, run

SMALL = ("--limit-documents", "80", "--topics", "6", "--servers", "2")


def write_libsvm(path: Path, *, num_rows: int, num_features: int) -> None:
    """Rows whose label is the sign of the sum of their features' weights: learnable, and sparse."""
    rng = np.random.default_rng(11)
    # Few features are frequent and most are rare, as words are.
    weights = rng.normal(size=num_features)
    lines = []
    for _ in range(num_rows):
        features = np.unique((num_features * rng.random(12) ** 8).astype(np.int64))
        label = "+1" if weights[features].sum() > 0 else "-1"
        lines.append(" ".join([label, *(f"{feature + 1}:1" for feature in features)]))
    path.write_text("\n".join(lines) + "\n")


def area_of(output: str) -> float:
    found = re.search(r"held-out rows: (0\.\d+)", output)
    assert found, output
    return float(found.group(1))


def test_quickstart_prints_what_its_comments_say(tmp_path: Path) -> None:
    lines = run("quickstart.py", folder=tmp_path).stdout.splitlines()
    assert np.array_equal(np.fromstring(lines[0].strip("[]"), sep=" "), [0.1, 0.05])
    assert np.allclose(np.fromstring(lines[1].strip("[]"), sep=" "), [0.1] * 4)


def test_words_are_counted_exactly_by_several_processes(tmp_path: Path) -> None:
    for number in range(5):
        (tmp_path / f"{number}.txt").write_text("tide " * number + "moon Moon " + f"only{chr(97 + number)} ")
    done = run("word_count.py", *sorted(tmp_path.glob("*.txt")), "--workers", "3", folder=tmp_path)
    assert "25 words of 5 files counted by 3 processes" in done.stdout
    assert "all 7 counts are equal" in done.stdout
    top = [line.split() for line in done.stdout.splitlines()[2:]]
    assert top[:3] == [["10", "moon"], ["10", "tide"], ["1", "onlya"]]


def test_a_file_that_is_missing_is_named_before_anything_starts(tmp_path: Path) -> None:
    done = run("word_count.py", "nowhere.txt", folder=tmp_path, status=2)
    assert "no such file: nowhere.txt" in done.stderr


def test_dice_are_counted_right_though_a_worker_falls(tmp_path: Path) -> None:
    done = run("ps_lite_style.py", "--workers", "2", "--throws", "20", folder=tmp_path)
    assert "round 1: node 9 (worker 0) has left, or was lost, before it answered" in done.stdout
    assert "round 1: node 9: 10 pushes were applied" in done.stdout
    assert done.stdout.count("800 throws; ") == 5
    assert "all 50 counts, and the 5 best sums, are those of one process that throws alone" in done.stdout


def test_logistic_regression_learns_and_pulls_a_part_of_the_weights(tmp_path: Path) -> None:
    path = tmp_path / "rows.libsvm"
    write_libsvm(path, num_rows=3000, num_features=5000)
    packed = tmp_path / "rows.libsvm.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    done = run("logistic_regression.py", packed, "--workers", "2", "--epochs", "3", folder=tmp_path)
    assert area_of(done.stdout) > 0.8
    travelled = re.search(r"pulled ([\d,]+) bytes .* have been ([\d,]+)", done.stdout)
    assert travelled, done.stdout
    pulled, dense = (int(number.replace(",", "")) for number in travelled.groups())
    assert 0 < pulled < 0.2 * dense


def test_logistic_regression_on_a9a(tmp_path: Path) -> None:
    path = DATA / "a9a_train.libsvm.gz"
    if not path.is_file():
        pytest.skip(f"{path} is missing; GLINTPY_TEST_DATA names the folder of such files")
    done = run("logistic_regression.py", path, "--epochs", "3", folder=tmp_path)
    assert area_of(done.stdout) > 0.9


def test_a_bad_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "bad.libsvm"
    path.write_text("+1 1:1 2:1\n-1 2:x\n")
    done = run("logistic_regression.py", path, folder=tmp_path, status=1)
    assert "line 2" in done.stderr


def test_the_area_under_the_curve_is_scikit_learns() -> None:
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(2)
    labels = (rng.random(500) < 0.3).astype(np.float64)
    scores = np.round(rng.normal(size=500) + labels, 1)  # rounded, so that there are ties
    ours = area_under_curve(labels, scores)
    assert ours == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    with pytest.raises(ValueError, match="0 positive and 3 negative"):
        area_under_curve(np.zeros(3), np.arange(3.0))


def test_libsvm_rows_are_read_and_selected(tmp_path: Path) -> None:
    path = tmp_path / "rows.libsvm"
    path.write_text("+1 1:0.5 3:2\n# a remark\n-1\n-1 2:1 # the end\n")
    rows = read_libsvm(path)
    assert rows.labels.tolist() == [1, 0, 0]
    assert rows.scores(np.array([2.0, 5.0, 1.0])).tolist() == [3, 0, 5]
    turned = rows.select(np.array([2, 0, 0]))
    assert turned.scores(np.array([2.0, 5.0, 1.0])).tolist() == [5, 3, 3]


@pytest.mark.parametrize(
    "workers", [pytest.param(1, marks=pytest.mark.soak), 2, pytest.param(4, marks=pytest.mark.soak)]
)
def test_topics_are_found_and_proved_with_any_number_of_workers(tmp_path: Path, workers: int) -> None:
    arguments = (*SMALL, "--sweeps", "4", "--workers", str(workers))
    done = run("topic_model.py", *arguments, folder=tmp_path)
    assert re.search(r"proof: .* each of 4 sweeps: [\d,]+ x 6 cells, [\d,]+ tokens", done.stdout), done.stdout
    assert len(re.findall(r"^ *\d+\.\d%  \w+( \w+){9}$", done.stdout, flags=re.MULTILINE)) == 6
    assert "sweep 4/4: " in done.stdout
    assert len(list((tmp_path / "topic-model").glob("sweep-*/assignments-*.npy"))) == workers


def test_topics_are_proved_while_servers_are_killed(tmp_path: Path) -> None:
    done = run("topic_model.py", *SMALL, "--sweeps", "3", "--workers", "2", "--chaos", folder=tmp_path)
    kills = re.findall(r"^chaos: kill -9 (server-\d)$", done.stdout, flags=re.MULTILINE)
    restarts = re.findall(r"^chaos: restarted (server-\d) in [\d.]+ s$", done.stdout, flags=re.MULTILINE)
    assert kills, done.stdout
    assert restarts == kills
    assert f"killed and restarted {len(kills)} times" in done.stdout
    assert re.search(r"proof: .* each of 3 sweeps", done.stdout), done.stdout


def test_a_fit_is_resumed_with_another_number_of_workers(tmp_path: Path) -> None:
    first = run("topic_model.py", *SMALL, "--sweeps", "3", "--workers", "2", folder=tmp_path)
    again = run("topic_model.py", *SMALL, "--sweeps", "2", "--workers", "3", "--resume", folder=tmp_path)
    assert "topics after 3 sweeps" in first.stdout
    assert "topics after 5 sweeps" in again.stdout
    assert "proof: " in again.stdout
    # One checkpoint is kept: the last one, by the three workers.
    assert len(list((tmp_path / "topic-model").glob("sweep-*"))) == 1
    assert len(list((tmp_path / "topic-model").glob("sweep-000005-*/assignments-*.npy"))) == 3


def test_assignments_that_are_not_those_of_the_counts_end_with_an_error(tmp_path: Path) -> None:
    run("topic_model.py", *SMALL, "--sweeps", "1", folder=tmp_path)
    (path,) = (tmp_path / "topic-model").glob("sweep-*/assignments-0.npy")
    pairs = np.load(path)
    pairs[1, 0] = (pairs[1, 0] + 1) % 6
    np.save(path, pairs)
    done = run("topic_model.py", *SMALL, "--sweeps", "1", "--resume", folder=tmp_path, status=1)
    assert "the proof failed after sweep 1: 2 of" in done.stdout


def test_what_cannot_be_done_is_said_in_a_line(tmp_path: Path) -> None:
    run("topic_model.py", *SMALL, "--sweeps", "1", "--workers", "1", folder=tmp_path)
    for arguments, message in (
        ((*SMALL, "--resume", "--checkpoint", "nowhere"), "run once without --resume"),
        ((*SMALL, "--resume", "--topics", "7"), "go on with --topics 6"),
        ((*SMALL, "--resume", "--limit-documents", "70"), "is of another corpus"),
        (("--corpus", "nowhere"), "nowhere is not a folder"),
    ):
        done = run("topic_model.py", *arguments, folder=tmp_path, status=1)
        assert message in done.stdout
        assert "Traceback" not in done.stdout + done.stderr


def test_a_folder_of_texts_is_a_corpus_and_compares_with_scikit_learn(tmp_path: Path) -> None:
    texts = tmp_path / "texts"
    texts.mkdir()
    subjects = (["tide", "moon", "wave", "shore"], ["oven", "bread", "flour", "yeast"])
    rng = np.random.default_rng(0)
    for number in range(60):
        (texts / f"{number}.txt").write_text(" ".join(rng.choice(subjects[number % 2], 80)))
    done = run(
        "topic_model.py", "--corpus", texts, "--topics", "2", "--sweeps", "15", "--compare", folder=tmp_path
    )
    numbers = re.findall(r"(?:these workers|scikit-learn) +([\d.]+)", done.stdout)
    ours, theirs = map(float, numbers)
    # Four words of a document's own subject remain possible: nobody can do better than 4.
    assert 3.9 < ours < 1.05 * theirs
    assert not (tmp_path / "topic-model").exists()


def share_without_servers() -> Share:
    """What a worker can count, but not sweep: it has no handles."""
    tokens = np.zeros(4, dtype=np.int32)
    return Share(
        number=0,
        positions=np.arange(4),
        words=tokens,
        documents=tokens,
        topics=tokens,
        blocks=np.array([0, 1]),
        first_block=0,
        num_topics=2,
        priors=Priors(),
        seed=(0,),
        n_wk=None,  # type: ignore[arg-type]
        n_k=None,  # type: ignore[arg-type]
        counted=True,
    )


def test_a_worker_that_fails_tells_its_reason() -> None:
    with (
        Team([share_without_servers(), share_without_servers()]) as team,
        pytest.raises(WorkerError, match=r"(?s)worker [01] failed:\nTraceback .*NoneType"),
    ):
        team.report(Sweep())


def test_a_worker_that_is_killed_is_noticed() -> None:
    with Team([share_without_servers(), share_without_servers()]) as team:
        assert [report.histogram.tolist() for report in team.report(Count())] == [[[4, 0]]] * 2
        process = team._members[1][0]
        process.kill()
        with pytest.raises(WorkerError, match=r"worker 1 \(process \d+\) ended with exit code -9"):
            team.report(Count())
    assert not any(process.is_alive() for process, _ in team._members)


def test_interrupting_ends_everything_and_leaves_the_last_checkpoint(tmp_path: Path) -> None:
    arguments = (*SMALL, "--sweeps", "100000", "--sweeps-per-save", "1", "--workers", "2")
    process = subprocess.Popen(
        command_of("topic_model.py", *arguments),
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # a group of its own, as a terminal gives it: Ctrl-C goes to all of it
    )
    assert process.stdout is not None
    try:
        lines: list[str] = []
        while not any(line.startswith("sweep 10/") for line in lines):
            lines.append(process.stdout.readline())
            assert lines[-1], "".join(lines)
        os.killpg(process.pid, signal.SIGINT)
        # Its end of the pipe closes when the last process of the group has gone.
        rest, _ = process.communicate(timeout=RUN_TIMEOUT_S)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    assert process.returncode == 130, rest
    assert "interrupted; --resume goes on" in rest
    assert "Traceback" not in rest
    done = run("topic_model.py", *SMALL, "--sweeps", "1", "--resume", folder=tmp_path)
    assert "proof: " in done.stdout
