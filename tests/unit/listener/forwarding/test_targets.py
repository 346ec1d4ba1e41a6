"""Where notifications are forwarded to, and as what."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from airbyte_events.airbyte.notification_kinds import NotificationKind
from airbyte_events.airbyte.notifications import parse
from airbyte_events.errors import SettingsError
from airbyte_events.listener.forwarding.bodies import LONGEST_TEXT, readable, text_only
from airbyte_events.listener.forwarding.targets import Targets, refuse_loops
from airbyte_events.listener.settings import Settings, load

SLACK = "https://hooks.slack.com/services/T000/B000/canarysecret"
CHAT = "https://chat.googleapis.com/v1/spaces/AAAA/messages?key=canarysecret&token=canarysecret"
BODY = b'{"text":  "Your connection orders failed", "data": {"success": false}}'


def only(*entries: str) -> Any:
    (target,) = Targets(entries).values()
    return target


class TestEntries:
    @pytest.mark.parametrize("entry", [SLACK, f" {SLACK} ", SLACK.replace("https", "HTTPS"), f"{SLACK}#there"])
    def test_a_url_gets_everything(self, entry: str) -> None:
        target = only(entry)
        assert (str(target.url), target.kinds) == (SLACK, None)
        assert all(target.accepts(kind) for kind in NotificationKind)

    @pytest.mark.parametrize(
        ("name", "kind"),
        [
            ("success", NotificationKind.SUCCESS),
            ("failure", NotificationKind.FAILURE),
            ("connectionUpdate", NotificationKind.SCHEMA_CHANGE),
            ("connectionUpdateActionRequired", NotificationKind.SCHEMA_CHANGE),
            ("syncDisabled", NotificationKind.DISABLED),
            ("syncDisabledWarning", NotificationKind.DISABLED_WARNING),
        ],
    )
    def test_one_of_a_kind_gets_that_and_what_airbyte_has_no_url_for(self, name: str, kind: NotificationKind) -> None:
        target = only(f"{name}={CHAT}")
        assert str(target.url) == CHAT
        everywhere = {NotificationKind.TEST, NotificationKind.QUEUED, NotificationKind.UNKNOWN}
        assert {each for each in NotificationKind if target.accepts(each)} == {kind} | everywhere

    def test_a_url_that_is_named_twice_is_one_target(self) -> None:
        assert only(f"success={SLACK}", f"failure={SLACK}").kinds == {
            NotificationKind.SUCCESS,
            NotificationKind.FAILURE,
        }
        assert only(f"success={SLACK}", SLACK).kinds is None
        assert only(SLACK, f"success={SLACK}").kinds is None

    @pytest.mark.parametrize(
        ("entry", "fault"),
        [
            ("hooks.slack.com/canarysecret", "neither"),
            ("canarysecret", "neither"),
            (f"failed={SLACK}", "the kind before = must be one of success, failure,"),
            (f"canarysecret={SLACK}", "the kind before = must be one of"),
            (f"={SLACK}", "the kind before = must be one of"),
            ("failure=canarysecret", "begins with http"),
            ("failure=ftp://canarysecret/", "begins with http"),
            ("https:///canarysecret", "a host"),
            ("https://canarysecret:99999999/", "no usable URL"),
            ("https://user:canarysecret@example.com/", "user name"),
            ("https://exa mple.com/canarysecret", "no usable URL"),
        ],
    )
    def test_what_is_none_is_refused_without_being_told(self, entry: str, fault: str) -> None:
        with pytest.raises(ValueError, match=fault) as caught:
            Targets([SLACK, entry])
        assert "canarysecret" not in str(caught.value)
        assert caught.value.__cause__ is None

    def test_i7_names_hold_no_secret(self) -> None:
        targets = Targets([SLACK, f"failure={CHAT}"])
        first, second = targets.values()
        assert first.name != second.name
        assert list(targets) == [first.name, second.name]
        assert list(Targets([f"success={SLACK}"])) == [first.name]
        assert (first.shown, second.shown) == ("https://hooks.slack.com/…", "https://chat.googleapis.com/…")
        for text in (repr(targets), str(targets), repr(first), str(first), *targets):
            assert "canarysecret" not in text
            assert "T000" not in text


class TestSettings:
    @pytest.fixture(autouse=True)
    def environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in [name for name in os.environ if name.startswith("AIRBYTE_EVENTS_")]:
            monkeypatch.delenv(name)

    def urls(self, settings: Settings, instance: str = "default") -> list[str]:
        assert "canarysecret" not in repr(settings) + str(settings.instances)
        return [url.get_secret_value() for url in settings.instances[instance].forward_urls]

    @pytest.mark.parametrize(
        "text", [f"{SLACK},failure={CHAT}", f" {SLACK} \n, failure={CHAT},", f"{SLACK}\nfailure={CHAT}"]
    )
    def test_by_variable_and_by_file(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str) -> None:
        monkeypatch.setenv("AIRBYTE_EVENTS_AIRBYTE_URL", "http://localhost:8000")
        assert self.urls(load()) == []
        monkeypatch.setenv("AIRBYTE_EVENTS_FORWARD_URLS", text)
        assert self.urls(load()) == [SLACK, f"failure={CHAT}"]
        monkeypatch.delenv("AIRBYTE_EVENTS_FORWARD_URLS")
        (tmp_path / "urls").write_text(text)
        monkeypatch.setenv("AIRBYTE_EVENTS_FORWARD_URLS_FILE", str(tmp_path / "urls"))
        assert self.urls(load()) == [SLACK, f"failure={CHAT}"]

    def test_of_each_instance(self, tmp_path: Path) -> None:
        (tmp_path / "urls").write_text(SLACK)
        (tmp_path / "events.toml").write_text(
            f"""
            [instances.eu]
            airbyte_url = "http://localhost:8000"
            forward_urls = ["success={SLACK}", "https://example.com/a,b"]
            [instances.us]
            airbyte_url = "http://localhost:8001"
            forward_urls_file = "urls"
            """
        )
        settings = load(tmp_path / "events.toml")
        assert self.urls(settings, "eu") == [f"success={SLACK}", "https://example.com/a,b"]
        assert self.urls(settings, "us") == [SLACK]

    @pytest.mark.parametrize("text", ["canarysecret", f"fail={SLACK}", f"{SLACK},https://example.com/a,canarysecret"])
    def test_wrong_ones_are_told_in_a_line(self, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
        monkeypatch.setenv("AIRBYTE_EVENTS_AIRBYTE_URL", "http://localhost:8000")
        monkeypatch.setenv("AIRBYTE_EVENTS_FORWARD_URLS", text)
        with pytest.raises(
            SettingsError, match=r"^AIRBYTE_EVENTS_FORWARD_URLS: .*; for example \S+=failure=https://"
        ) as caught:
            load()
        assert "canarysecret" not in str(caught.value)
        assert str(caught.value).isprintable()


class TestChoice:
    def test_by_kind_each_target_once(self) -> None:
        everything, failures = Targets(["https://a.example/", f"failure={SLACK}", f"syncDisabled={SLACK}"])
        targets = Targets(["https://a.example/", f"failure={SLACK}", f"syncDisabled={SLACK}"])
        assert targets.of(NotificationKind.SUCCESS, BODY) == [everything]
        assert targets.of(NotificationKind.FAILURE, BODY) == [everything, failures]
        assert targets.of(NotificationKind.DISABLED, BODY) == [everything, failures]
        assert targets.of(NotificationKind.TEST, BODY) == [everything, failures]

    @pytest.mark.parametrize("body", [b"{}", b'{"text": " ", "blocks": [{}]}', b'{"a": "b"}', b"not JSON", b"[]", b""])
    def test_what_says_nothing_to_people_goes_nowhere(self, body: bytes) -> None:
        assert Targets([SLACK]).of(NotificationKind.UNKNOWN, body) == []

    @pytest.mark.parametrize(
        "path", ["/webhooks/default/token", "/prefix/webhooks/other/token", "/webhooks/default/token/"]
    )
    def test_our_own_receiver_is_refused(self, path: str) -> None:
        targets = {"default": Targets([f"https://events.example.com{path}?x=1"]), "other": Targets()}
        with pytest.raises(SettingsError, match=r"FORWARD_URLS: https://events\.example\.com/…") as caught:
            refuse_loops(targets, lambda token: token == "token")
        assert "webhooks/" not in str(caught.value)
        refuse_loops(targets, lambda token: False)

    def test_another_listener_is_not(self) -> None:
        refuse_loops({"default": Targets(["https://h.example/webhooks/elsewhere/token"])}, lambda token: True)


class TestMessages:
    def test_slack_and_others_get_the_same_bytes(self) -> None:
        for url in (SLACK, "https://example.com/", "https://chat.googleapis.com.example.com/"):
            assert only(url).content(BODY) is BODY

    def test_invalid_json_of_old_releases_goes_on_as_text(self) -> None:
        said = b'{"text":"Your source schema has changed.\n\nThe stream "orders" is new.\n"}'
        for url in (SLACK, CHAT):
            text = 'Your source schema has changed.\n\nThe stream "orders" is new.'
            assert json.loads(only(url).content(said)) == {"text": text}
            assert Targets([url]).of(parse(said).kind, said) == [only(url).name]

    def test_google_chat_gets_text_alone(self) -> None:
        assert json.loads(only(CHAT).content(BODY)) == {"text": "Your connection orders failed"}

    def test_text_of_blocks_where_there_is_no_other(self) -> None:
        blocks: list[Any] = [
            {"type": "section", "text": {"type": "mrkdwn", "text": "Sync completed: <https://a.example|orders>"}},
            {"type": "section", "fields": [{"type": "mrkdwn", "text": "*Source:* x"}, {"text": 7}, "plain", None]},
            {"type": "divider"},
            "?",
            {"text": "as it is"},
        ]
        expected = "Sync completed: <https://a.example|orders>\n*Source:* x\nplain\nas it is"
        assert readable(json.dumps({"text": "", "blocks": blocks}).encode()) == expected
        assert readable(json.dumps({"text": "first", "blocks": blocks}).encode()) == "first"

    def test_nobody_is_mentioned_in_google_chat(self) -> None:
        sent = json.loads(text_only(b'{"text": "a <users/all> b <https://a.example|c>"}'))
        assert sent == {"text": "a < users/all> b <https://a.example|c>"}

    @pytest.mark.parametrize("char", ["x", "ü", "\N{SNOWMAN}", "\N{PILE OF POO}", "\n", '"'])
    def test_is_cut_to_what_google_chat_takes(self, char: str) -> None:
        sent = text_only(json.dumps({"text": f"begin{char * 60_000}end"}, ensure_ascii=False).encode())
        assert len(sent) <= 32_000
        text = json.loads(sent)["text"]
        assert text.startswith(f"begin{char}")
        assert text.endswith(f"{char}…")
        assert len(text.encode()) <= LONGEST_TEXT + 3

    @pytest.mark.parametrize("body", [b"{}", b"nothing", b'{"text": ["a"]}', b'{"blocks": {"a": 1}}'])
    def test_no_text_is_told(self, body: bytes) -> None:
        with pytest.raises(ValueError, match="it has no text"):
            text_only(body)

    def test_half_surrogate_pairs_are_no_trouble(self) -> None:
        assert json.loads(text_only(b'{"text": "a\\ud800b"}')) == {"text": "a?b"}
