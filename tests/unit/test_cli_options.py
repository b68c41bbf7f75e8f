"""The command line's options: every setting has one, files may give them, and mistakes are one line."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from glintpy import config
from glintpy.cli import configfile
from glintpy.cli.app import app, run
from glintpy.cli.configfile import options_of
from glintpy.cli.options import full_address
from glintpy.cli.output import Failed

ROOT = Path(__file__).parents[2]

COMMANDS = (
    "master",
    "server",
    "local",
    "launch",
    "status",
    "models",
    "doctor",
    "save",
    "load",
    "rm",
    "chaos",
)

NOWHERE = "tcp://127.0.0.1:1"
"""Nobody listens at this port: only the system's own services may take it."""


pytestmark = pytest.mark.usefixtures("logging_as_before")


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str, exit_code: int) -> str:
    """Run a command that is wrong and return the one line that says so."""
    assert run(arguments) == exit_code
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    return line


def config_file(folder: Path, text: str) -> str:
    path = folder / "cluster.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


# --- what there is ----------------------------------------------------------------------------------------


def test_the_commands_are_those_promised() -> None:
    assert [command.name for command in app.registered_commands] == list(COMMANDS)


@pytest.mark.parametrize(
    "kind", [config.ServerSettings, config.MembershipSettings], ids=lambda kind: kind.__name__
)
def test_every_setting_has_an_option_with_its_default(kind: type) -> None:
    nodes = [*configfile._commands["master"].values(), *configfile._commands["server"].values()]
    options = [
        (parameter, inspect.signature(command).parameters[parameter].default)
        for command in nodes
        for parameter, _, _ in options_of([command]).values()
    ]
    for field in fields(kind):
        default = getattr(kind(), field.name)
        assert (field.name, ",".join(default) if isinstance(default, tuple) else default) in options


@pytest.mark.parametrize("command", COMMANDS)
def test_help_explains_every_option(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert run([command, "--help"]) == 0
    text = capsys.readouterr().out
    assert "--config" in text
    assert "--log-level" in text
    assert "Usage: glintpy" in text
    (function,) = (entry.callback for entry in app.registered_commands if entry.name == command)
    assert function is not None
    for name, (_, _, option) in options_of([function]).items():
        assert option.hidden or (f"--{name}" in text and option.help)


def test_without_a_command_there_is_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 0
    text = capsys.readouterr().out
    assert all(command in text for command in COMMANDS)


def test_the_version_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    from glintpy import __version__

    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"glintpy {__version__}\n"


def test_help_loads_nothing_that_takes_time() -> None:
    program = (
        "import sys; from glintpy.cli.app import run; run(['--help']); "
        "sys.exit(', '.join({'numpy', 'zmq', 'pykka', 'fsspec'} & set(sys.modules)) or 0)"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 0, result.stderr


# --- mistakes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing"], "No such command 'nothing'"),
        (["status", "--nothing"], "No such option: --nothing"),
        (["save"], "Missing argument 'NAME'"),
        (["server", "--memory-limit", "much"], "'much' is not a size; one looks like 4GB"),
        (["status", "--timeout", "soon"], "'soon' is not a duration; one looks like 1d"),
        (["server", "--durability", "disk"], "--durability disk needs --data-dir"),
        (["master", "--data-dir", ""], "a directory has a name; write . for the present one"),
        (["server", "--data-dir", ""], "a directory has a name; write . for the present one"),
        (["local", "--data-dir", ""], "a directory has a name; write . for the present one"),
        (["server", "--name", ""], "is not a name of 1 to 100 printable characters"),
        (["server", "--name", "a\nb"], "is not a name of 1 to 100 printable characters"),
        (["server", "--window-min", "1GB"], "--window-min (1000000000 bytes) is at most --window-max"),
        (["master", "--port", "70000"], "--port"),
        (["local", "--servers", "0"], "--servers"),
        (["master", "--log-level", "loud"], "--log-level"),
        (["load", "x", "--partitioner", "hash"], "--partitioner"),
        (["master", "--address", "tcp://127.0.0.1:0", "--port", "0"], "leave --port out"),
        (["rm"], "name the models to remove, or say --unnamed"),
        (["rm", "a", "--unnamed"], "name the models to remove, or say --unnamed"),
        (["rm", "a", "--older", "1d"], "--older goes with --unnamed"),
        (["status", "--config", "none.toml"], "can't read the config file none.toml: No such file"),
    ],
    ids=lambda value: " ".join(value).replace("\n", " ") if isinstance(value, list) else "",
)
def test_a_wrong_command_is_one_line_that_says_what_is_wrong(
    capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    line = refusal(capsys, *arguments, exit_code=2)
    assert said in line
    assert line.startswith("glintpy" if arguments == ["nothing"] else f"glintpy {arguments[0]}: ")


@pytest.mark.parametrize(
    "arguments", [["status"], ["models"], ["save", "a", "b"], ["load", "a"], ["rm", "a"]], ids=" ".join
)
def test_a_master_that_is_down_is_said_to_be_so_at_once(
    capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    line = refusal(capsys, *arguments, "--master", NOWHERE, exit_code=1)
    assert line.startswith(f"glintpy {arguments[0]}: the master is down: nothing listens at {NOWHERE}")


def test_what_is_no_address_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert "has no host and port" in refusal(capsys, "status", "--master", "a:b", exit_code=1)
    assert "is not an address" in refusal(capsys, "status", "--master", "http://a", exit_code=1)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("example.org", "tcp://example.org:13370"),
        ("example.org:5", "tcp://example.org:5"),
        ("tcp://example.org:5", "tcp://example.org:5"),
        ("ipc:///run/master", "ipc:///run/master"),
        ("::1", "tcp://[::1]:13370"),
        ("[::1]", "tcp://[::1]:13370"),
        ("[::1]:5", "tcp://[::1]:5"),
    ],
)
def test_scheme_and_port_of_a_master_may_be_left_out(text: str, address: str) -> None:
    assert full_address(text) == address


# --- config files -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[server\n", "is not TOML: "),
        (
            "port = 1\n",
            "there is no key 'port' outside of a table; the tables are [master], [server], [local], [launch], [client]",
        ),
        ("[serverz]\n", "there is no table [serverz]"),
        ("client = 1\n", "client is a table: write [client]"),
        (
            "[server]\nmemory-limti = 1\n",
            "[server] has no key 'memory-limti'; it has address, advertise, allow, answers-max",
        ),
        ("[master]\nconfig = 'x'\n", "[master] has no key 'config'"),
        ("[client]\njson = true\n", "[client] has no key 'json'; it has log-level, master, timeout"),
        ("[master]\nport = '1'\n", "[master] port is an integer, not '1'"),
        ("[master]\nport = true\n", "[master] port is an integer, not True"),
        ("[master]\nport = 70000\n", "[master] port is 70000; it is at least 0 and at most 65535"),
        ("[server]\nsessions_max = 0\n", "[server] sessions_max is 0; it is at least 1"),
        ("[master]\nhost = 1\n", "[master] host is a text, not 1"),
        ("[master]\ninsecure = 'yes'\n", "[master] insecure is true or false, not 'yes'"),
        ("[server]\nmemory-limit = '4 XB'\n", "[server] memory-limit: '4 XB' is not a size"),
        ("[server]\nmemory-limit = 1.5\n", "[server] memory-limit is an integer or a text, not 1.5"),
        ("[master]\nsilent = [1]\n", "[master] silent is an integer or a number or a text, not [1]"),
        ("[master]\nsilent = -1\n", "[master] silent: -1 is not a duration"),
        (
            "[local]\nlog-level = 'loud'\n",
            "[local] log-level is one of debug, info, warning, error, not 'loud'",
        ),
    ],
    ids=lambda value: value.replace("\n", " ") if value.endswith("\n") else "",
)
@pytest.mark.parametrize("command", ["status", "server"])
def test_a_wrong_config_file_is_one_line_that_says_where(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, command: str, text: str, said: str
) -> None:
    line = refusal(capsys, command, "--config", config_file(tmp_path, text), exit_code=2)
    assert line.startswith(f"glintpy {command}: ")
    assert "cluster.toml" in line
    assert said in line


def test_a_file_that_is_no_text_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "cluster.toml"
    path.write_bytes(b"\xff\xfe[")
    assert "is not TOML" in refusal(capsys, "status", "--config", str(path), exit_code=2)
    assert "Is a directory" in refusal(capsys, "status", "--config", str(tmp_path), exit_code=2)


def test_a_file_gives_what_the_command_line_does_not(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = config_file(
        tmp_path, f"[client]\nmaster = '{NOWHERE}'\ntimeout = '2s'\n[server]\nmaster = 'example.org'\n"
    )
    assert NOWHERE in refusal(capsys, "status", "--config", path, exit_code=1)
    line = refusal(capsys, "status", "--config", path, "--master", "tcp://127.0.0.1:2", exit_code=1)
    assert "tcp://127.0.0.1:2" in line
    # Before or behind the file makes no difference.
    line = refusal(capsys, "status", "--master", "tcp://127.0.0.1:2", "--config", path, exit_code=1)
    assert "tcp://127.0.0.1:2" in line


def test_every_option_of_a_node_can_stand_in_a_file(tmp_path: Path) -> None:
    text = """
    [master]
    host = "127.0.0.1"
    port = 0
    data-dir = "state"
    silent = 2.5
    hung = "5s"
    [server]
    memory_limit = "4GB"
    window-max = 1048576
    insecure = true
    log-level = "debug"
    [local]
    servers = 3
    """
    commands = {table: list(found.values()) for table, found in configfile._commands.items()}
    tables = configfile.read_tables(Path(config_file(tmp_path, text)), commands)
    assert tables["master"] == {
        "host": "127.0.0.1",
        "port": 0,
        "data_dir": "state",
        "silent_s": 2.5,
        "hung_s": "5s",
    }
    assert tables["server"] == {
        "memory_limit": "4GB",
        "window_bytes_max": 1048576,
        "insecure": True,
        "log_level": "debug",
    }
    assert tables["local"] == {"servers": 3}


def test_the_config_file_of_the_guide_is_right(tmp_path: Path) -> None:
    guide = (ROOT / "docs" / "guide" / "deploying.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"^```toml\n(.*?)^```", guide, re.MULTILINE | re.DOTALL)
    commands = {table: list(found.values()) for table, found in configfile._commands.items()}
    assert set(configfile.read_tables(Path(config_file(tmp_path, text)), commands)) == {
        "master",
        "server",
        "client",
    }


def test_options_that_only_some_commands_of_a_table_have_are_not_its_keys(tmp_path: Path) -> None:
    with pytest.raises(Failed, match=r"\[client\] has no key 'overwrite'"):
        configfile.read_tables(
            Path(config_file(tmp_path, "[client]\noverwrite = true\n")),
            {"client": list(configfile._commands["client"].values())},
        )
