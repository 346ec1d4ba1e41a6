"""Nothing that the demo starts outlives it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest
from keeper import alive
from processes import Processes, StackError, free_ports, scrubbed_environment, wait_until

Owner = Callable[[str, Path, str], AbstractContextManager[subprocess.Popen[str]]]


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    with Processes(tmp_path, tmp_path) as processes:
        yield processes


def python(processes: Processes, code: str, *, grace: float = 0.5) -> list[psutil.Process]:
    """Start code as ``code`` that prints ``ready`` when it is; return its processes."""
    process = processes.start("code", [sys.executable, "-c", code], env=os.environ, grace=grace)
    processes.wait_until(lambda: "ready" in process.log.read_text(), "the code", timeout=20, blame=["code"])
    leader = psutil.Process(process.pid)
    return [leader, *leader.children(recursive=True)]


def still_there(found: list[psutil.Process]) -> list[psutil.Process]:
    return [process for process in found if alive(process)]


CHILDREN = """
import os, signal
child = os.fork()
if not child:
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if child:
    print("ready", flush=True)
while True:
    signal.pause()
"""


def test_stopping_ends_a_child_in_its_own_session_that_ignores_sigterm(processes: Processes) -> None:
    found = python(processes, CHILDREN)
    assert len(found) == 2
    processes.stop("code")
    assert not still_there(found)
    assert "code" not in processes


def test_a_crash_takes_the_children_along(processes: Processes) -> None:
    found = python(processes, CHILDREN)
    processes["code"].kill()
    assert not still_there(found)
    assert processes["code"].status == 128 + signal.SIGKILL


def test_a_stopped_process_is_ended_within_its_grace(processes: Processes) -> None:
    code = "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(7)); print('ready', flush=True)"
    (leader,) = python(processes, f"{code}\nwhile True: signal.pause()", grace=30)
    processes["code"].send_signal(signal.SIGSTOP)
    processes.wait_until(lambda: leader.status() == psutil.STATUS_STOPPED, "SIGSTOP", timeout=10)
    process = processes["code"]
    processes.stop()
    assert process.status == 7


def test_an_orphan_in_its_own_session_is_ended(processes: Processes) -> None:
    code = """
import os, signal
reader, writer = os.pipe()
if not os.fork():
    os.setsid()
    if not os.fork():
        os.write(writer, b"%d" % os.getpid())
        while True:
            signal.pause()
    os._exit(0)
os.wait()
print("orphan", int(os.read(reader, 20)), "ready", flush=True)
while True:
    signal.pause()
"""
    python(processes, code)
    orphan = psutil.Process(int(processes["code"].log.read_text().split()[1]))
    if sys.platform != "linux":
        pytest.skip("only Linux keeps an orphan in sight")
    processes.stop()
    assert not alive(orphan)


def test_a_killed_keeper_leaves_nothing_behind_after_the_stop(processes: Processes) -> None:
    found = python(processes, "import signal; print('ready', flush=True); signal.pause()")
    psutil.Process(found[0].ppid()).kill()
    processes.stop()
    wait_until(lambda: not still_there(found), "the command to be gone", timeout=10)


def children(owner: subprocess.Popen[str]) -> list[psutil.Process]:
    """Two keepers, each with a command that has made four of itself, once all of them are there."""
    itself = psutil.Process(owner.pid)

    def probe() -> list[psutil.Process] | None:
        found = itself.children(recursive=True)
        return found if len(found) == 10 else None

    return wait_until(probe, "ten processes", timeout=20)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_nothing_outlives_the_owner(owner: Owner, tmp_path: Path, number: signal.Signals) -> None:
    with owner("processes", tmp_path, "0.5") as process:
        found = children(process)
        process.send_signal(number)
        process.wait(30)
        if number is not signal.SIGKILL:
            assert not still_there(found)
        wait_until(lambda: not still_there(found), "the processes to be gone", timeout=30)


def test_a_second_ctrl_c_cuts_the_grace_short(owner: Owner, tmp_path: Path) -> None:
    with owner("processes", tmp_path, "60") as process:
        found = children(process)

        def interrupted() -> bool:
            process.send_signal(signal.SIGINT)
            return process.poll() is not None

        wait_until(interrupted, "the owner to end", timeout=20)
        wait_until(lambda: not still_there(found), "the processes to be gone", timeout=20)


def test_the_error_says_which_process_ended_how_and_its_last_words(processes: Processes) -> None:
    code = "import sys; print('ready', flush=True); sys.exit('no such database')"
    processes.start("code", [sys.executable, "-c", code], env=os.environ)
    with pytest.raises(StackError, match=r"code ended with status 1; the end of .*code\.log:\n.*\n +no such database"):
        processes.wait_until(lambda: False, "nothing", timeout=20, blame=["code"])


def test_waiting_in_vain_says_for_what_and_how_long(processes: Processes) -> None:
    python(processes, "import signal; print('ready', flush=True); signal.pause()")
    with pytest.raises(StackError, match=r"waited 0\.3 seconds for Godot, in vain; the end of .*code\.log:\n    ready"):
        processes.wait_until(lambda: None, "Godot", timeout=0.3, blame=["code"])


def test_a_command_that_is_not_there(processes: Processes) -> None:
    with pytest.raises(StackError, match=r"code did not start; (.|\n)*can't start no-such-command"):
        processes.start("code", ["no-such-command"], env=os.environ)


def test_a_restarted_process_is_another_one_with_the_same_log(processes: Processes) -> None:
    code = "import os, signal; print(os.getpid(), 'ready', flush=True); signal.pause()"
    found = python(processes, code)
    process = processes["code"]
    process.restart()
    wait_until(lambda: process.log.read_text().count("ready") == 2, "both lines", timeout=20)
    assert not still_there(found)
    assert process.status is None
    assert process.log.read_text().split()[2] == str(process.pid)


def test_ports_are_free_and_different() -> None:
    assert len(set(free_ports(20))) == 20


def test_other_installations_and_proxies_stay_out_of_the_environment() -> None:
    environ = {
        "AIRFLOW_HOME": "/home",
        "AIRFLOW__CORE__DAGS_FOLDER": "/dags",
        "HTTP_PROXY": "http://proxy",
        "PATH": "/bin",
    }
    assert scrubbed_environment(environ, "AIRFLOW_") == {"PATH": "/bin"}
