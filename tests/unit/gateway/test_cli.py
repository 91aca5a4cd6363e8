"""The command line: what each command prints, how it ends, and how little it imports."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tomllib
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner

from gateway.cli import cli

ROOT = Path(__file__).parents[3]
DEMO = ROOT / "config" / "demo"


def run(*arguments: str, env: dict[str, str] | None = None) -> tuple[int, str, str]:
    """Status, output and errors of one command."""
    result = CliRunner().invoke(cli, arguments, env=env or {})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["serve", "--help"], ["keys", "add", "--help"]])
def test_help_imports_nothing_heavy(arguments: Sequence[str]) -> None:
    """A person who asks for help does not wait for servers, drivers and tables."""
    script = (
        "import sys\nfrom gateway.cli import main\nsys.argv = ['brokerd', *sys.argv[1:]]\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\n"
        "heavy = {'aiohttp', 'asyncpg', 'redis', 'rich', 'uvloop', 'msgspec', 'bridge', 'router'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        capture_output=True, text=True, check=True, timeout=60, cwd=ROOT,
    )  # fmt: skip
    assert done.stderr.splitlines()[-1] == "[]"
    assert "Usage: brokerd" in done.stdout


def test_every_command_is_there() -> None:
    """The commands that the documents name exist."""
    names = {
        "serve", "demo", "check", "migrate", "verify", "keys", "people", "audit", "sim",
        "scenario", "version", "rulebook", "duties",
    }  # fmt: skip
    assert set(cli.commands) == names


def test_the_version_is_that_of_the_distribution() -> None:
    """What is installed says which it is."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert run("version") == (0, f"brokerd {project['version']}\n", "")


def test_checking_a_right_rulebook_names_its_hash() -> None:
    """The operator sees what was read and the hash that will be in force."""
    status, out, _ = run("check", str(DEMO))
    assert status == 0
    assert "2 entities, 3 brands, 4 desks, 1 servers, 6 groups, 4 PSPs" in out
    assert len(out.split("hash ")[1].strip()) == 64


def test_checking_prints_every_finding_with_its_line(tmp_path: Path) -> None:
    """Shape, references and the rooms' own findings: file, line, code, message; status 1."""
    for file in DEMO.glob("*.toml"):
        (tmp_path / file.name).write_text(file.read_text())
    rules = tmp_path / "rules.toml"
    rules.write_text(rules.read_text().replace('route = ["coral"]', 'route = ["moon"]'))
    access = tmp_path / "access.toml"
    access.write_text(access.read_text().replace('"metrics:read"', '"moon:read"'))
    status, out, err = run("check", str(tmp_path))
    assert (status, out) == (1, "")
    lines = err.splitlines()
    assert any(":53: unknown-name: rule[7].route[0]: there is no PSP `moon`" in it for it in lines)
    assert any("access.toml:1" in it and "scope-unknown: " in it for it in lines)
    assert all(it.startswith(str(tmp_path)) for it in lines[:-1])
    assert lines[-1] == f"{len(lines) - 1} findings"


def test_checking_settings_finds_who_is_not_reached(tmp_path: Path) -> None:
    """With --config both files are judged, and the servers they name compared."""
    settings = tmp_path / "brokerd.toml"
    settings.write_text('[rulebook]\nfolder = "x"\n[control]\npepper = "env:PEPPER"\n')
    status, _, err = run("check", str(DEMO), "--config", str(settings), env={"PEPPER": "p"})
    assert status == 1
    assert err.count("missing-section") == 5
    assert "broker.toml:81: missing-section: [platforms.mt5-live] is missing" in err


def test_the_settings_say_which_rulebook_to_check(tmp_path: Path) -> None:
    """Without a folder it is that of the settings, and without settings the sample broker."""
    settings = tmp_path / "brokerd.toml"
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "all.toml").write_text("entity = []")
    settings.write_text(
        f'[rulebook]\nfolder = "{tmp_path}/rules"\n[control]\npepper = "env:PEPPER"\n'
    )
    status, _, err = run("check", "--config", str(settings), env={"PEPPER": "p"})
    assert status == 1
    assert err.startswith(f"{tmp_path}/rules/all.toml:1: wrong-value: entity: expected a list")
    assert run("check")[0] == 0


@pytest.mark.parametrize("command", [["serve"], ["migrate"], ["verify"], ["keys", "list"]])
def test_wrong_settings_stop_every_command(command: list[str]) -> None:
    """All mistakes are printed and nothing is started."""
    status, out, err = run(*command, env={"BROKERD_HTTP__PORT": "x"})
    assert (status, out) == (1, "")
    assert "environment BROKERD_HTTP__PORT: wrong-type: " in err
    assert "missing-key: rulebook: `rulebook` is missing" in err
    assert err.endswith("3 findings\n")


def test_an_unreachable_database_is_one_line(tmp_path: Path) -> None:
    """A fault that an operator can act on is no traceback."""
    environ = {
        "BROKERD_RULEBOOK__FOLDER": str(DEMO),
        "BROKERD_CONTROL__PEPPER": "env:PEPPER",
        "PEPPER": "p",
        "BROKERD_DATABASE__DSN": f"postgresql:///nowhere?host={tmp_path}",
    }
    status, _, err = run("keys", "list", env=environ)
    assert status == 1
    assert err.startswith("Error: ")
    assert "Traceback" not in err
    status, _, err = run("migrate", env=environ)
    assert (status, err) == (1, "Error: migrations need the owner: set database.owner_dsn\n")


def test_a_headless_demo_must_end() -> None:
    """Without a terminal nobody could stop it."""
    status, _, err = run("demo", "--headless")
    assert status == 2
    assert "--headless needs --seconds" in err


@pytest.fixture
def provider(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A simulated provider started as an operator would."""
    (tmp_path / "key").write_text("secret\n")
    command = [sys.executable, "-m", "gateway.cli", "sim", "psp", "--name", "acme"]
    command += ["--state", str(tmp_path / "books"), "--key-file", str(tmp_path / "key")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        yield process
        process.kill()


def test_a_simulator_says_where_it_listens_and_stops_when_asked(
    provider: subprocess.Popen[str],
) -> None:
    """Whoever starts it reads one line of JSON; SIGTERM ends it with status 0."""
    assert provider.stdout is not None
    started = json.loads(provider.stdout.readline())
    assert started["pid"] == provider.pid
    with urllib.request.urlopen(started["listening"] + "/admin/books", timeout=10) as answer:
        assert answer.status == 200
    provider.send_signal(signal.SIGTERM)
    assert provider.wait(timeout=20) == 0


def test_a_listener_needs_host_and_port(tmp_path: Path) -> None:
    """A port alone could mean every network."""
    (tmp_path / "key").write_text("secret")
    files = ["--state", str(tmp_path / "b"), "--key-file", str(tmp_path / "key")]
    status, _, err = run("sim", "psp", "--name", "acme", "--listen", "9000", *files)
    assert status == 2
    assert "expected host:port" in err
