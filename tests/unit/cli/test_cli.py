from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest
import typer
from typer.testing import CliRunner

import support.command
from airbyte_events import __version__
from airbyte_events.cli.app import application
from airbyte_events.cli.runner import command as declare
from airbyte_events.listener.settings.reference import reference
from support.process import environ_of
from support.servers import free_port

CANARY = "canary-sings-in-the-dark-and-is-never-heard"


def command(*args: str, before: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own.

    :param before: Python that runs first.
    :param variables: of the environment, beside what is there without settings.
    """
    code = f"{before}\nfrom airbyte_events.cli.main import main; main()"
    program = [sys.executable, "-c", code] if before else support.command.command()
    return subprocess.run(
        [*program, *args],
        env=environ_of() | variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def started(*args: str) -> subprocess.Popen[str]:
    """The same, without waiting for its end."""
    program = support.command.command()
    return subprocess.Popen(
        [*program, *args], env=environ_of(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@contextmanager
def simulated() -> Iterator[str]:
    """Run a simulator in a process of its own; its URL."""
    with started("simulate", "--port", "0", "--json") as running:
        assert running.stdout is not None
        try:
            yield json.loads(running.stdout.readline())["url"]
        finally:
            running.terminate()


def test_version() -> None:
    done = command("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"airbyte-events {__version__}\n", "")


COMMANDS = [
    (),
    *(
        (name,)
        for name in ("up", "serve", "tail", "jobs", "trigger", "replay", "webhooks", "doctor", "store", "notify")
    ),
    *((name,) for name in ("demo", "simulate")),
    *(("store", "migrate"), ("notify", "list"), ("notify", "test")),
    ("jobs", "show"),
    *(("webhooks", name) for name in ("install", "status", "test", "uninstall")),
]


class TestHelp:
    @pytest.mark.parametrize("args", [(), ("jobs", "show")])
    def test_is_plain_in_a_pipe(self, args: tuple[str, ...]) -> None:
        done = command(*args, "--help")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith(f"Usage: {' '.join(('airbyte-events', *args))} ")
        assert not re.search("[\x1b\u2500-\u257f]", done.stdout)

    @pytest.mark.parametrize("args", COMMANDS)
    def test_is_plain_without_rich_and_has_a_short_option(self, args: tuple[str, ...]) -> None:
        short, long = (
            CliRunner().invoke(application(rich=False), [*args, option], prog_name="airbyte-events")
            for option in ("-h", "--help")
        )
        assert (short.exit_code, short.output) == (0, long.output)
        assert long.output.startswith(f"Usage: {' '.join(('airbyte-events', *args))} ")
        assert not re.search("[\x1b\u2500-\u257f]", long.output)

    def test_of_the_module(self) -> None:
        command = [sys.executable, "-m", "airbyte_events", "-h"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.stdout.startswith("Usage: airbyte-events ")

    @pytest.mark.parametrize("args", COMMANDS)
    def test_fits_80_columns(self, args: tuple[str, ...]) -> None:
        for rich in (False, True):
            runner = CliRunner()
            shown = runner.invoke(application(rich=rich), [*args, "--help"], env={"COLUMNS": "80"}).output
            assert [line for line in shown.splitlines() if len(line) > 80] == []
            # A sentence that is cut off, a range in mathematical notation.
            assert re.search(r"\w\.\.\.$|x[<>]=|<=x", shown, re.MULTILINE) is None

    @pytest.mark.parametrize("rich", [True, False])
    def test_teaches_by_examples(self, rich: bool) -> None:
        shown = CliRunner().invoke(application(rich=rich), ["--help"], prog_name="airbyte-events").output
        for words in ("airbyte-events demo", "airbyte-events up", "Exit codes: 0 done; 1 failed; 2 wrong usage"):
            assert words in shown

    @pytest.mark.parametrize("rich", [True, False])
    @pytest.mark.parametrize("args", [args for args in COMMANDS if args])
    def test_of_each_has_examples_and_exit_codes(self, args: tuple[str, ...], rich: bool) -> None:
        runner = CliRunner()
        shown = runner.invoke(application(rich=rich), [*args, "--help"], env={"COLUMNS": "200"}).output
        assert " airbyte-events " in shown.partition("--help")[2] or args == ("serve",)
        assert "Exit codes: " in shown

    @pytest.mark.parametrize("rich", [True, False])
    def test_of_serve_names_every_setting(self, rich: bool) -> None:
        shown = CliRunner().invoke(application(rich=rich), ["serve", "--help"], env={"COLUMNS": "200"}).output
        assert not [line.variable for line in reference() if line.variable not in shown]
        assert "[instances.NAME]" in shown
        assert "](" not in shown

    def test_is_shown_when_nothing_is_asked_for(self) -> None:
        done = command()
        assert done.returncode in {0, 2}
        assert "serve" in done.stdout + done.stderr


def codes_in_help(*args: str) -> set[int]:
    """The exit codes that the help lists."""
    shown = CliRunner().invoke(application(rich=False), [*args, "--help"], env={"COLUMNS": "200"}).output
    _, _, listed = " ".join(shown.split()).partition("Exit codes: ")
    return {int(entry.split()[0]) for entry in listed.split("; ")}


class TestExitCodes:
    """The help lists all exit codes, and no others."""

    @pytest.mark.parametrize("group", [(), ("jobs",), ("webhooks",), ("notify",), ("store",)])
    def test_of_a_group_are_those_of_its_commands(self, group: tuple[str, ...]) -> None:
        inner = [args for args in COMMANDS if args[: len(group)] == group and args != group]
        assert codes_in_help(*group) == set().union(*(codes_in_help(*args) for args in inner))

    def test_are_those_of_the_documentation(self) -> None:
        page = (Path(__file__).parents[3] / "docs" / "cli.md").read_text(encoding="utf-8")
        _, _, section = page.partition("## Output and exit codes")
        rows = re.findall(r"^\| (\d+) \|", section.partition("\n## ")[0], re.MULTILINE)
        assert codes_in_help() == set(map(int, rows))

    def test_of_a_time_out_is_that_of_trigger(self) -> None:
        assert [args for args in COMMANDS if 3 in codes_in_help(*args)] == [(), ("trigger",)]

    @pytest.mark.parametrize(("raised", "code"), [(KeyboardInterrupt, 130), (BrokenPipeError, 141), (typer.Exit(1), 1)])
    def test_of_every_command_are_listed(
        self, raised: type[BaseException] | BaseException, code: int, capfd: pytest.CaptureFixture[str]
    ) -> None:
        @declare("fail")
        async def fail() -> int:
            raise raised

        with pytest.raises(typer.Exit) as left:
            fail.run()
        assert left.value.exit_code == code
        assert code in fail.codes
        assert f"{code} " in fail.epilog[-1]

    def test_an_unlisted_one_is_a_mistake(self) -> None:
        @declare("leave", codes={0: "done", 1: "failed"})
        async def leave() -> int:
            return 7

        with pytest.raises(ValueError, match="7 is not in the help of leave"):
            leave.run()

    @pytest.mark.skipif(sys.platform == "win32", reason="a pipe without a reader")
    @pytest.mark.parametrize("args", [("notify", "list"), ("doctor",), ("up", "--airbyte-url")])
    def test_of_an_output_that_nobody_reads(self, args: tuple[str, ...], tmp_path: Path) -> None:
        reader, writer = os.pipe()
        os.close(reader)
        with simulated() as url, os.fdopen(writer, "wb") as pipe:
            more = [url, "--port", str(free_port())] if args[0] == "up" else ["--json"]
            done = subprocess.run(
                [*support.command.command(), *args, *more],
                env=environ_of() | {"XDG_DATA_HOME": str(tmp_path)},
                stdout=pipe,
                stderr=subprocess.PIPE,
                timeout=60,
                check=False,
            )
        assert done.returncode == 141
        assert 141 in codes_in_help(*(arg for arg in args if not arg.startswith("--")))


class TestWrongUsage:
    def test_missing_settings_are_one_line(self) -> None:
        done = command("serve")
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("airbyte-events: AIRBYTE_EVENTS_AIRBYTE_URL: not set")
        assert done.stderr.count("\n") == 1

    def test_wrong_option_is_one_line(self) -> None:
        done = command("serve", "--port", "99999", AIRBYTE_EVENTS_AIRBYTE_URL="http://localhost:8000")
        assert done.returncode == 2
        assert done.stderr.startswith("airbyte-events: --port: not a port")
        assert done.stderr.count("\n") == 1

    @pytest.mark.parametrize("args", [("serve", "--port", "many"), ("serve", "--prot", "1"), ("sevre",), ("--what",)])
    def test_wrong_arguments(self, args: tuple[str, ...]) -> None:
        done = command(*args)
        assert (done.returncode, done.stdout) == (2, "")
        assert "Usage: airbyte-events" in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("jobs", "--status", "done"), "done is not one of pending, queued"),
        (("jobs", "--limit", "0"), "0 is not a whole number from 1 to 1,000,000"),
        (("serve", "--port", "many"), "many is not a whole number of at least 0"),
        (("up", "--port", "0"), "0 is not a whole number from 1 to 65,535"),
        (("trigger", "Orders", "--job-type", "sink"), "sink is not one of sync, reset, clear, refresh"),
        (("simulate", "--latency", "long"), "long is not a number of at least 0"),
        (("simulate", "--webhook-url", "listener"), "--webhook-url: a webhook URL begins with http:// or https://"),
        (("simulate", "--fault", "rain"), "--fault: no fault is called 'rain'"),
    ],
)
def test_wrong_values_say_what_to_write(args: tuple[str, ...], said: str) -> None:
    shown = CliRunner().invoke(application(rich=False), args)
    assert shown.exit_code == 2
    assert said in shown.output


def test_i7_no_secret_in_help_or_errors() -> None:
    secrets = {f"AIRBYTE_EVENTS_{name}": CANARY for name in ("CLIENT_SECRET", "API_TOKENS", "WEBHOOK_TOKENS", "QUUX")}
    for args in (("serve", "--help"), ("serve",), ("serve", "--port", "x")):
        done = command(*args, **secrets)
        assert CANARY not in done.stdout + done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("missing", ["typer", "rich", "pydantic", "platformdirs", "starlette"])
def test_base_install_is_told_what_to_install(missing: str) -> None:
    done = command("--version", before=f"import sys; sys.modules[{missing!r}] = None")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert "airbyte-events[server]" in done.stderr


def test_an_interrupt_while_modules_are_loaded_is_quiet() -> None:
    loading = (
        "import sys\n"
        "class Interrupted:\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == 'airbyte_events.cli.app':\n"
        "            raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupted())"
    )
    done = command("--version", before=loading)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_modules_that_ought_to_be_there_are_not_explained_away() -> None:
    done = command("--version", before="import sys; sys.modules['json'] = None")
    assert done.returncode == 1
    assert "airbyte-events[server]" not in done.stderr


def test_shell_completion() -> None:
    done = command(
        before="import sys; sys.argv = ['airbyte-events']",
        _AIRBYTE_EVENTS_COMPLETE="complete_bash",
        COMP_WORDS="airbyte-events s",
        COMP_CWORD="1",
    )
    assert set(done.stdout.split()) == {"serve", "simulate", "store"}


def test_address_in_use_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = command(
            *("serve", "--port", port),
            AIRBYTE_EVENTS_AIRBYTE_URL="http://127.0.0.1:9",
            AIRBYTE_EVENTS_STORE="memory:",
        )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert port in done.stderr.splitlines()[-1]


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_serve_listens_until_a_signal(tmp_path: Path) -> None:
    config = tmp_path / "events.toml"
    config.write_text('store = "memory:"\n[instances.eu]\nairbyte_url = "http://127.0.0.1:9"\n', encoding="utf-8")
    for show in ([], ["--show"]):
        with started("serve", "--config", str(config), "--port", "0", *show) as running:
            assert running.stdout is not None
            said = running.stdout.readline()
            link = next(line for line in running.stdout if "Dashboard: " in line)
            running.send_signal(signal.SIGTERM)
            _, err = running.communicate(timeout=10)
        assert re.search(r"listens on http://127\.0\.0\.1:\d+", said)
        assert ("/#log-in=" in link) == bool(show)
        assert running.returncode == 0
        assert "Traceback" not in err


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_simulate_goes_on_though_nobody_reads_what_it_says() -> None:
    port = free_port()
    with started("simulate", "--port", str(port)) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        running.stdout.close()
        while running.poll() is None:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
                break
        running.send_signal(signal.SIGTERM)
        assert running.stderr.read() == ""
    assert running.returncode == 0


@pytest.mark.skipif(sys.platform == "win32", reason="a shell")
def test_output_that_the_shell_has_closed() -> None:
    args = ["sh", "-c", 'exec "$@" >&-', "sh", *support.command.fresh_command(), "--version"]
    done = subprocess.run(args, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


class TestDemo:
    def test_tells_programs_of_every_end(self) -> None:
        # Settings of the real listener are none of the demo's business.
        done = command(
            "demo", "--json", AIRBYTE_EVENTS_PORT="nonsense", AIRBYTE_EVENTS_AIRBYTE_URL="http://127.0.0.1:9"
        )
        assert (done.returncode, done.stderr) == (0, "")
        jobs = {job["job_id"]: job for job in map(json.loads, done.stdout.splitlines())}
        assert [jobs[number]["status"] for number in sorted(jobs)] == ["succeeded"] * 3 + ["failed", "cancelled"]
        for job in jobs.values():
            steps = [value for value in job["milliseconds"].values() if value is not None]
            assert job["arrived"]
            assert steps == sorted(steps)
            assert sum(job["requests"].values()) > 0
        assert jobs[4]["error"] == {
            "message": "the password has expired",
            "type": "config_error",
            "origin": "destination",
        }
        assert (jobs[5]["origin"], jobs[5]["milliseconds"]["webhook_received"]) == ("poll", None)

    @pytest.mark.skipif(sys.platform == "win32", reason="signals")
    def test_stays_up_with_syncs_running_if_it_is_to_be_kept(self) -> None:
        with started("demo", "--keep", "--json") as running:
            assert running.stdout is not None
            lines = map(json.loads, running.stdout)
            address = next(each["dashboard"] for each in lines if "dashboard" in each)
            url, _, code = address.partition("/#log-in=")
            with httpx.Client(base_url=url, trust_env=False) as browser:
                ours = {"X-Requested-With": "airbyte-events"}
                assert browser.post("/session", json={"code": code}, headers=ours).status_code == 200
                # The first syncs are of jobs 1 to 5.
                page = browser.get("/v1/events", params={"job_id": 6, "wait": 20}).json()
            assert page["events"]
            running.send_signal(signal.SIGINT)
            _, err = running.communicate(timeout=10)
        assert running.returncode == 0
        assert "Traceback" not in err

    def test_is_plain_in_a_pipe(self) -> None:
        done = command("demo")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.isascii()
        assert "\x1b" not in done.stdout
        assert "5 of 5 completions arrived" in done.stdout

    def test_fails_if_an_end_does_not_arrive(self) -> None:
        code = (
            "import anyio; from airbyte_events.cli.demo import demonstrate; "
            "raise SystemExit(anyio.run(demonstrate, 0.7))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 1
        assert "0 of 5 completions arrived" in done.stdout
        assert "Not arrived: job 5 (clicks)." in done.stdout

    def test_a_reader_who_leaves_ends_nothing(self) -> None:
        with started("demo") as running:
            assert running.stdout is not None
            assert running.stderr is not None
            running.stdout.readline()
            running.stdout.close()
            assert running.stderr.read() == ""
        assert running.returncode == 0

    @pytest.mark.skipif(sys.platform == "win32", reason="signals")
    def test_interrupt_ends_it_and_leaves_nothing(self) -> None:
        with started("demo") as running:
            assert running.stdout is not None
            begun = running.stdout.readline()
            running.send_signal(signal.SIGINT)
            _, err = running.communicate(timeout=10)
        assert running.returncode == 130
        assert "Traceback" not in err
        for port in re.findall(r"127\.0\.0\.1:(\d+)", begun):
            with pytest.raises(OSError, match="refused"):
                socket.create_connection(("127.0.0.1", int(port)), timeout=5)
