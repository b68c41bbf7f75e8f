"""Every code block of the documentation is run, and every command in it exists.

Blocks of Python are run file by file, in order, in one namespace and a folder of their own. Of commands it
is checked that the subcommand and its options exist and that scripts are where they are said to be. A
block that can't be run has its reason in a comment right before it: ``<!-- not run: reason -->``.

A block behind ``<!-- file: name.py -->`` is a module: it is written where the others, and the processes that they
start, can import it. A table behind ``<!-- run: last column -->`` is run, too: of each row, the code in backticks in
its last column.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])

FENCE = re.compile(r"^(?P<indent> *)(?P<fence>`{3,}|~{3,})(?P<language>[\w+-]*).*$")
NOT_RUN = re.compile(r"<!-- not run: (?P<reason>\S.*) -->")
MODULE = re.compile(r"<!-- file: (?P<name>\w+\.py) -->")
TABLE = "<!-- run: last column -->"

SHELLS = {"console", "bash", "sh", "shell"}

TIMEOUT_S = 240


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        line: the number of its first line of code, from 1.
        reason: why it isn't run; empty if it is.
        file: the name of a module that it is; empty if it is none.
    """

    document: Path
    language: str
    line: int
    lines: tuple[str, ...]
    reason: str
    file: str = ""

    @property
    def label(self) -> str:
        return f"{label_of(self.document)}:{self.line}"


def label_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.name


def blocks_of(document: Path) -> list[Block]:
    """Return the fenced blocks of a document."""
    found: list[Block] = []
    lines = document.read_text(encoding="utf-8").splitlines()
    opened: re.Match[str] | None = None
    start = 0
    before = ""  # the last line with text outside blocks
    for number, line in enumerate(lines):
        if opened is None:
            opened = FENCE.match(line)
            start = number + 1
            if opened is None and line.strip():
                before = line.strip()
        elif line.strip() == opened["fence"]:
            skipped = NOT_RUN.fullmatch(before)
            code = tuple(text.removeprefix(opened["indent"]) for text in lines[start:number])
            reason = skipped["reason"] if skipped else ""
            module = MODULE.fullmatch(before)
            name = module["name"] if module else ""
            found.append(Block(document, opened["language"].lower(), start + 1, code, reason, name))
            opened, before = None, ""
    assert opened is None, f"{label_of(document)}:{start}: a block that is never closed"
    return found


def rows_of(document: Path) -> list[Block]:
    """Return the code in the last column of tables that are run, a block for each row."""
    found: list[Block] = []
    lines = document.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines):
        if line.strip() != TABLE:
            continue
        start = next(n for n in range(number, len(lines)) if lines[n].startswith("|"))
        # A title, and dashes.
        for place in range(start + 2, len(lines)):
            if not lines[place].startswith("|"):
                break
            code = re.findall(r"`([^`]+)`", re.split(r"(?<!\\)\|", lines[place].strip())[-2])
            assert code, f"{label_of(document)}:{place + 1}: a row without code"
            found.append(Block(document, "python", place + 1, ("; ".join(code),), ""))
    return found


def program_of(blocks: list[Block]) -> str:
    """Return the blocks as one program whose line numbers are the document's."""
    lines: list[str] = []
    for block in blocks:
        lines += [""] * (block.line - 1 - len(lines))
        lines += block.lines
    return "\n".join(lines) + "\n"


def run_python(program: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(folder)])}
    return subprocess.run(
        [sys.executable, str(program)],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def commands_of(block: Block) -> list[tuple[int, list[str]]]:
    """Return the commands of a block, each with its line and split into words.

    In a block with prompts only the lines with a prompt are commands, the others are what they print.
    """
    prompts = any(line.startswith("$ ") for line in block.lines)
    joined: list[tuple[int, str]] = []
    continues = False
    for number, line in enumerate(block.lines, block.line):
        if continues:
            joined[-1] = (joined[-1][0], joined[-1][1] + line.strip())
        elif line.startswith("$ ") or (not prompts and line.strip()):
            joined.append((number, line.removeprefix("$ ")))
        else:
            continue
        continues = joined[-1][1].endswith("\\")
        if continues:
            joined[-1] = (joined[-1][0], joined[-1][1][:-1])
    found = []
    for number, line in joined:
        words = shlex.shlex(line, posix=True, punctuation_chars="&|;")
        words.whitespace_split = True
        command: list[str] = []
        for word in [*words, ";"]:
            if set(word) <= set("&|;"):
                found.append((number, command))
                command = []
            else:
                command.append(word)
    return [(number, command) for number, command in found if command]


@cache
def help_of(subcommand: str) -> str | None:
    """Return the help of a subcommand, or of glintpy itself; None if there is no such subcommand."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "300", "NO_COLOR": "1", "TERM": "dumb"}
    words = [subcommand] if subcommand else []
    result = subprocess.run(
        [sys.executable, "-m", "glintpy", *words, "--help"],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return result.stdout if result.returncode == 0 else None


def wrong_with(command: list[str]) -> str:
    """Return what is wrong with a command; empty if nothing is, or if it is none of ours."""
    words = [word for word in command if not re.fullmatch(r"\w+=\S*", word)]
    if not words:
        return ""
    if Path(words[0]).name.startswith("python") and words[1:3] == ["-m", "glintpy"]:
        words = words[2:]
    if Path(words[0]).name.startswith("python"):
        script = next((word for word in words[1:] if not word.startswith("-")), "")
        return "" if not script.endswith(".py") or (ROOT / script).is_file() else f"there is no {script}"
    if Path(words[0]).name != "glintpy":
        return ""
    subcommand = next((word for word in words[1:] if not word.startswith("-")), "")
    text = help_of(subcommand)
    if text is None:
        return f"glintpy has no command {subcommand!r}"
    if subcommand == "launch":
        # What workers run begins with an interpreter, in the documentation; its options are its own.
        start = next((n for n, word in enumerate(words) if Path(word).name.startswith("python")), len(words))
        found = wrong_with(words[start:]) if start < len(words) else ""
        if found:
            return found
        words = words[:start]
    for word in words[1:]:
        option = word.partition("=")[0]
        known = text if subcommand and words.index(word) > words.index(subcommand) else help_of("") or ""
        if option.startswith("-") and not re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", known):
            return f"glintpy {subcommand} has no option {option}"
    return ""


by_document = pytest.mark.parametrize("document", DOCUMENTS, ids=label_of)


@by_document
def test_the_python_of_a_document_runs(document: Path, tmp_path: Path) -> None:
    found = [block for block in blocks_of(document) if block.language == "python" and not block.reason]
    if not found:
        return
    folder = tmp_path / "clean"
    folder.mkdir(parents=True)
    for block in found:
        if block.file:
            (folder / block.file).write_text("\n".join(block.lines) + "\n", encoding="utf-8")
    blocks = [*(block for block in found if not block.file), *rows_of(document)]
    # Its name is in the traceback, and its line numbers are the document's.
    program = tmp_path / (document.stem + ".py")
    program.write_text(program_of(sorted(blocks, key=lambda block: block.line)), encoding="utf-8")
    result = run_python(program, folder)
    assert result.returncode == 0, f"{label_of(document)}:\n{result.stdout}\n{result.stderr}"


@by_document
def test_the_commands_of_a_document_exist(document: Path) -> None:
    found = [
        f"{label_of(document)}:{number}: {' '.join(command)}: {wrong_with(command)}"
        for block in blocks_of(document)
        if block.language in SHELLS and not block.reason
        for number, command in commands_of(block)
        if wrong_with(command)
    ]
    assert not found, "\n".join(found)


@by_document
def test_links_within_the_project_lead_somewhere(document: Path) -> None:
    text = re.sub(r"```.*?```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL)
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text)
    missing = [target for target in targets if ":" not in target and not (document.parent / target).exists()]
    assert not missing, f"{label_of(document)} links to {missing}"


def test_there_is_a_readme_and_it_has_code() -> None:
    languages = {block.language for block in blocks_of(ROOT / "README.md")}
    assert "python" in languages
    assert languages & SHELLS


def test_the_readme_s_test_command_is_what_ci_runs() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    (command,) = re.findall(r"^# The README's test command, word for word:\n(.+)$", script, re.MULTILINE)
    readme = [line.removeprefix("$ ") for block in blocks_of(ROOT / "README.md") for line in block.lines]
    assert command in readme, f"README.md doesn't have the line {command!r} that .ci/run runs"


# --- these tests' own parts -------------------------------------------------------------------------------

EXAMPLE = """\
Text.

```python
a = 1
```

<!-- not run: needs a cluster of its own -->

```python
raise SystemExit("never")
```

- in a list:

  ```python
  b = a + 1
  assert b == 2
  ```

```console
$ glintpy status --json | head
some output
$ A=1 python examples/quickstart.py \\
    --rows 5 && glintpy local --servers 2 &
```
"""


@pytest.fixture
def example(tmp_path: Path) -> Path:
    path = tmp_path / "example.md"
    path.write_text(EXAMPLE, encoding="utf-8")
    return path


def test_blocks_are_found_with_their_lines_and_reasons(example: Path) -> None:
    blocks = blocks_of(example)
    assert [(block.language, block.line, block.reason) for block in blocks] == [
        ("python", 4, ""),
        ("python", 10, "needs a cluster of its own"),
        ("python", 16, ""),
        ("console", 21, ""),
    ]


def test_python_blocks_share_a_namespace_and_keep_their_line_numbers(example: Path, tmp_path: Path) -> None:
    blocks = [block for block in blocks_of(example) if block.language == "python" and not block.reason]
    text = program_of(blocks)
    assert text.splitlines()[15:17] == ["b = a + 1", "assert b == 2"]
    program = tmp_path / "example.py"
    program.write_text(text.replace("== 2", "== 3"), encoding="utf-8")
    result = run_python(program, tmp_path)
    assert result.returncode == 1
    assert "line 17" in result.stderr


TABLED = """\
```python
a = []
```

<!-- file: beside.py -->

```python
b = 7
```

<!-- run: last column -->

| theirs | ours |
|---|---|
| `Push(1)` | `a.append(1)`, and then `a.append(2)` |
| `Import()` | `from beside import b` |

| not run | code |
|---|---|
| `x` | `raise SystemExit` |

```python
assert (a, b) == ([1, 2], 7)
```
"""


def test_tables_that_say_so_are_run_and_files_lie_where_they_can_be_imported(tmp_path: Path) -> None:
    path = tmp_path / "tabled.md"
    path.write_text(TABLED, encoding="utf-8")
    assert [(block.line, block.lines) for block in rows_of(path)] == [
        (15, ("a.append(1); a.append(2)",)),
        (16, ("from beside import b",)),
    ]
    test_the_python_of_a_document_runs(path, tmp_path)
    path.write_text(TABLED.replace("a.append(2)", "a.append(3)"), encoding="utf-8")
    with pytest.raises(AssertionError, match="line 23"):
        test_the_python_of_a_document_runs(path, tmp_path / "again")


def test_commands_are_told_from_what_they_print(example: Path) -> None:
    assert commands_of(blocks_of(example)[-1]) == [
        (21, ["glintpy", "status", "--json"]),
        (21, ["head"]),
        (23, ["A=1", "python", "examples/quickstart.py", "--rows", "5"]),
        (23, ["glintpy", "local", "--servers", "2"]),
    ]


def test_commands_that_do_not_exist_are_reported() -> None:
    assert "no command 'lunch'" in wrong_with(["glintpy", "lunch"])
    assert "no option --kv" in wrong_with(["glintpy", "launch", "-n", "2", "--kv", "python", "-m", "x"])
    assert "no x.py" in wrong_with(["glintpy", "launch", "-n", "2", "python", "x.py", "--kv", "local"])
    assert "no option --colour" in wrong_with(["python", "-m", "glintpy", "local", "--colour"])
    assert "no examples/nothing.py" in wrong_with(["python", "examples/nothing.py"])
    assert wrong_with(["glintpy", "local", "--servers", "2"]) == ""
    assert wrong_with(["pip", "install", "glintpy"]) == ""
