"""Tables ``[[notify]]``: what they take, and how a fault in one is explained."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from airbyte_events.errors import SettingsError
from airbyte_events.listener.notify.targets import notify_targets, refuse_own
from airbyte_events.listener.settings import Settings, load
from support.listener import instance_of, settings_of
from support.notify import SIGNING_KEY, table

CANARY = "canarythatisasecret"
GOOD = f'name = "all"\ntype = "cloudevents"\nurl = "https://example.com/{CANARY}"\nsecret = "{SIGNING_KEY}"\n'


def loaded(*tables: str) -> Settings:
    text = '[instances.default]\nairbyte_url = "http://localhost:8000"\n'
    Path("events.toml").write_text(text + "".join(f"[[notify]]\n{each}" for each in tables), encoding="utf-8")
    return load(Path("events.toml"))


def refused(*tables: str) -> str:
    with pytest.raises(SettingsError) as caught:
        loaded(*tables)
    assert CANARY not in str(caught.value)
    assert SIGNING_KEY not in str(caught.value)
    return str(caught.value)


def test_url_and_secret_can_be_files() -> None:
    Path("url").write_text(f"https://example.com/{CANARY}\n", encoding="utf-8")
    Path("key").write_text(SIGNING_KEY, encoding="utf-8")
    by_file = 'name = "all"\ntype = "cloudevents"\nurl_file = "url"\nsecret_file = "key"\n'
    assert loaded(by_file) == loaded(GOOD)


def test_filters_are_lists_or_text() -> None:
    (found,) = loaded(
        GOOD + 'statuses = "failed, cancelled"\njob_types = ["sync"]\nconnections = ["Orders, daily"]\n'
        'workspaces = "Data team"\ninstances = ["default"]\n'
    ).notify
    assert (found.statuses, found.job_types) == (("failed", "cancelled"), ("sync",))
    assert (found.connections, found.workspaces) == (("Orders, daily",), ("Data team",))


def test_no_secret_is_shown() -> None:
    settings = loaded(GOOD)
    targets = notify_targets(settings.notify)
    assert str(targets["notify/all"]) == "https://example.com/… (notify/all)"
    shown = repr(settings) + repr(targets) + str(list(targets.values()))
    assert CANARY not in shown
    assert SIGNING_KEY not in shown


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('name = "all"\n', ""), 'notify.1.name in events.toml: not set; for example name = "on-call"'),
        (('"all"', '"On call"'), "notify.On call.name in events.toml: a target's name has 1 to 32 characters"),
        (('"all"', "7"), "notify.1.name in events.toml: not a text"),
        (('"cloudevents"', '"pager"'), "notify.all.type in events.toml: not one of "),
        (("https://example.com", "ftp://example.com"), "notify.all.url in events.toml: an entry has no usable URL"),
        (("url =", "urls ="), "notify.all.urls in events.toml: no such setting; did you mean url?"),
        (
            ("url =", "channel ="),
            "notify.all.channel in events.toml: no such setting; known are connections, group_seconds, instances, "
            "job_types, name, secret, signals, statuses, type, url, workspaces, secret_file, url_file",
        ),
        ((f'secret = "{SIGNING_KEY}"', ""), "notify.all.secret in events.toml: not set, but cloudevents are signed"),
        ((SIGNING_KEY, "whsec_c2hvcnQ="), "notify.all.secret in events.toml: not whsec_ and the Base64 of 24 to 64"),
        ((SIGNING_KEY, CANARY), "notify.all.secret in events.toml: not whsec_ and the Base64"),
        (("secret =", 'statuses = ["late"]\nsecret ='), "notify.all.statuses in events.toml: not a list of succeeded"),
        (("secret =", "job_types = []\nsecret ="), "notify.all.job_types in events.toml: not a list of sync, reset"),
        (("secret =", "connections = [7]\nsecret ="), "notify.all.connections in events.toml: not a list of names"),
        (("secret =", 'instances = ["x"]\nsecret ='), "notify in events.toml: all: no instance has the name x"),
        (("secret =", 'secret_file = "x"\nsecret ='), "notify.all.secret in events.toml: set by value and by file"),
    ],
)
def test_a_fault_is_explained(change: tuple[str, str], message: str) -> None:
    assert refused(GOOD.replace(*change)).startswith(message)


def test_names_are_unique() -> None:
    assert refused(GOOD, GOOD) == "notify in events.toml: two targets have the name all; rename one"


def test_is_an_array_of_tables() -> None:
    text = '[instances.default]\nairbyte_url = "http://localhost:8000"\n[notify]\nname = "all"\n'
    Path("events.toml").write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError, match=r"notify in events\.toml: not an array of tables; for example \[\[notify"):
        load(Path("events.toml"))


def test_is_in_the_file_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRBYTE_EVENTS_NOTIFY", "all")
    assert "AIRBYTE_EVENTS_NOTIFY: no such setting" in refused(GOOD)


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::"])
@pytest.mark.parametrize(
    "url",
    [
        *("0.0.0.0", "0", "127.1.2.3", "127.0.0.1.", "127.1", "0x7f.1", "2130706433", "017700000001"),
        *("[::]", "[::ffff:127.0.0.1]", "[::FFFF:7F00:1]", "[0:0:0:0:0:0:0:1]", "[::1%lo]"),
        *("localhost.", "LocalHost", "events.localhost", socket.gethostname(), socket.gethostname().upper()),
    ],
)
def test_by_whatever_address_of_this_machine(host: str, url: str) -> None:
    settings = settings_of(instance_of("http://127.0.0.1:9"), host=host)
    with pytest.raises(SettingsError, match="is this listener"):
        refuse_own(settings, notify_targets([table(url=f"http://{url}:8484/x")]).values())


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:8484/x", "http://localhost:8484", "http://[::1]:8484/", "https://Events.Example.com./airbyte/x"],
)
def test_the_listener_itself_is_refused(url: str) -> None:
    settings = settings_of(
        instance_of("http://127.0.0.1:9"), host="0.0.0.0", public_url="https://events.example.com:443/airbyte"
    )
    with pytest.raises(SettingsError, match=r"notify\.events\.url: .*/… is this listener; write another URL"):
        refuse_own(settings, notify_targets([table(url=url)]).values())


def test_by_the_address_of_an_interface() -> None:
    """The one that this machine sends from: connecting a UDP socket sends nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has loopback alone")
        address = probe.getsockname()[0]
    targets = notify_targets([table(url=f"http://{address}:8484/x")]).values()
    with pytest.raises(SettingsError, match="is this listener"):
        refuse_own(settings_of(instance_of("http://127.0.0.1:9"), host="0.0.0.0"), targets)
    refuse_own(settings_of(instance_of("http://127.0.0.1:9"), host="127.0.0.1"), targets)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8485/x",
        "http://192.0.2.1:8484/x",
        "http://127.1/x",
        "http://128.1:8484/x",
        "http://localhost.example.com:8484",
        "http://example.com:8484",
        "https://events.example.com/x",
        "https://events.example.com/airbyte2/x",
    ],
)
def test_another_address_is_not(url: str) -> None:
    settings = settings_of(
        instance_of("http://127.0.0.1:9"), host="0.0.0.0", public_url="https://events.example.com/airbyte"
    )
    refuse_own(settings, notify_targets([table(url=url)]).values())
