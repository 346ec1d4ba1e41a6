"""``airbyte-events webhooks``: what stands in Airbyte, before and after."""

from __future__ import annotations

import json
import stat
from collections import Counter

import pytest

from airbyte_events.simulator import Fault, Simulator, serve_simulator
from support.command_stage import CLIENT_SECRET, WEBHOOK_TOKEN, CommandStage

pytestmark = pytest.mark.anyio

SLACK = "https://hooks.slack.com/services/T000/B000/canary"
INSTALL = ("webhooks", "install", "--yes")


def url_of(stage: CommandStage, kind: str) -> str | None:
    return stage.sim.workspace.webhook_url(kind)


class TestInstall:
    async def test_sets_the_urls_and_proves_them(self, stage: CommandStage) -> None:
        done = await stage.run(*INSTALL, "--url", stage.url)
        assert done.code == 0
        assert "ok  a test that Airbyte itself sent to" in done.out
        assert f"and is notification 1 of the listener {stage.url}" in done.out
        assert "press Test" not in done.err
        assert url_of(stage, "success") == url_of(stage, "failure") == stage.receiver
        assert url_of(stage, "syncDisabled") is None
        # And it works.
        await stage.settled(stage.end(stage.start()))

    @pytest.mark.parametrize("status", [403, 404, 500])
    async def test_without_the_internal_api_a_test_is_posted_from_here(self, stage: CommandStage, status: int) -> None:
        stage.sim.add_fault(Fault(kind="status", status=status, route="POST /notifications/try_webhook"))
        done = await stage.run(*INSTALL, "--url", stage.url)
        assert done.code == 0
        assert "posted from here to" in done.out
        assert f"and is notification 1 of the listener {stage.url}" in done.out
        assert "to see that Airbyte's own machine reaches the listener" in done.err

    async def test_ctrl_c_is_an_answer(self, stage: CommandStage) -> None:
        args = ("webhooks", "install", "--url", stage.url)
        code, _ = await stage.at_terminal(*args, interrupt_at=b"[y/N]")
        assert code == 130
        assert url_of(stage, "success") is None

    async def test_dry_run_changes_nothing(self, stage: CommandStage) -> None:
        done = await stage.run("webhooks", "install", "--dry-run", "--url", stage.url)
        assert done.code == 0
        assert [line.split()[-3:-1] for line in done.out.splitlines()[1:]] == [
            ["success", "nowhere"],
            ["failure", "nowhere"],
        ]
        assert url_of(stage, "success") is None
        assert not any(stage.folder.glob("share/**/*.json"))

    async def test_twice_is_as_good_as_once(self, stage: CommandStage) -> None:
        stage.sim.workspace.set_webhook(SLACK)
        await stage.run(*INSTALL, "--url", stage.url)
        again = await stage.run(*INSTALL, "--url", stage.url)
        assert again.code == 0
        assert "Airbyte needs no change" in again.err
        await stage.run("webhooks", "uninstall", "--yes")
        assert url_of(stage, "success") == SLACK

    async def test_asks_before_at_a_terminal(self, stage: CommandStage) -> None:
        code, seen = await stage.at_terminal("webhooks", "install", "--url", stage.url, typed=b"n\n")
        assert "Change this in Airbyte?" in seen
        assert (code, url_of(stage, "success")) == (1, None)
        code, _ = await stage.at_terminal("webhooks", "install", "--url", stage.url, typed=b"y\n")
        assert (code, url_of(stage, "success")) == (0, stage.receiver)

    async def test_wants_a_yes_where_nobody_can_be_asked(self, stage: CommandStage) -> None:
        done = await stage.run("webhooks", "install", "--url", stage.url)
        assert done.code == 2
        assert "--yes" in done.err
        assert url_of(stage, "success") is None

    async def test_keeps_what_stood_there_for_its_owner_alone(self, stage: CommandStage) -> None:
        stage.sim.workspace.set_webhook(SLACK, ("failure", "syncDisabled"))
        keep = stage.folder / "kept.json"
        done = await stage.run(*INSTALL, "--url", stage.url, "--all-kinds", "--keep", str(keep), "--json")
        assert done.code == 0
        assert "canary" not in done.out + done.err
        told = json.loads(done.out)
        assert told["proven"]
        assert {each["before"].partition("…")[0] for each in told["changes"]} == {"nowhere", "https://hooks.slack.com/"}
        forwards = stage.folder / "kept.forward-urls"
        assert told["forward_urls_file"] == str(forwards)
        for file in (keep, forwards):
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert forwards.read_text().splitlines() == [f"failure={SLACK}", f"syncDisabled={SLACK}"]
        # It is a setting, as it stands.
        right = await stage.run("webhooks", "status", "--keep", str(keep), FORWARD_URLS_FILE=str(forwards))
        assert right.code == 0

    async def test_a_url_that_leads_nowhere_is_told(self, stage: CommandStage) -> None:
        done = await stage.run(*INSTALL, "--url", f"{stage.sim.url}/elsewhere")
        assert done.code == 1
        assert "did not arrive: a proxy or another server there responded with an error" in done.out
        assert "one posted from here does not, either: it responds with 404" in done.out

    async def test_says_what_is_missing(self, stage: CommandStage) -> None:
        for settings, words in (
            ({}, "--url: not set, nor AIRBYTE_EVENTS_PUBLIC_URL"),
            ({"PUBLIC_URL": stage.url, "WEBHOOK_TOKENS": None}, "AIRBYTE_EVENTS_WEBHOOK_TOKENS: not set"),
            ({"AIRBYTE_URL": None, "CLIENT_ID": None, "CLIENT_SECRET": None}, "AIRBYTE_EVENTS_AIRBYTE_URL: not set"),
        ):
            done = await stage.run(*INSTALL, **settings)
            assert (done.code, done.out) == (2, "")
            assert words in done.err
        done = await stage.run(*INSTALL, "--url", f"{stage.url}/webhooks/default/x")
        assert (done.code, "remove /webhooks/" in done.err) == (2, True)

    async def test_wants_to_know_which_of_several_workspaces(self, stage: CommandStage) -> None:
        other = stage.sim.world.add_workspace("Another one")
        done = await stage.run(*INSTALL, "--url", stage.url)
        assert (done.code, other.id in done.err) == (2, True)
        assert (await stage.run(*INSTALL, "--url", stage.url, "--workspace", other.id)).code == 0
        assert (other.webhook_url("success"), url_of(stage, "success")) == (stage.receiver, None)

    async def test_moves_all_that_is_ours_to_another_address_or_token(self, stage: CommandStage) -> None:
        await stage.run(*INSTALL, "--url", stage.url, "--all-kinds")
        newer = f"a-newer-token-of-the-webhooks,{WEBHOOK_TOKEN}"
        done = await stage.run("webhooks", "status", "--url", "https://events.example.com", WEBHOOK_TOKENS=newer)
        assert done.code == 1
        args = ("webhooks", "install", "--url", "https://events.example.com", "--dry-run", "--json")
        changes = json.loads((await stage.run(*args, WEBHOOK_TOKENS=newer)).out)["changes"]
        assert len(changes) == 6
        assert {each["before"] for each in changes} == {f"{stage.url}/webhooks/default/… (another token)"}
        assert {each["after"] for each in changes} == {"https://events.example.com/webhooks/default/…"}

    async def test_says_who_is_not_told_any_more_until_it_is_forwarded(self, stage: CommandStage) -> None:
        stage.sim.workspace.set_webhook(SLACK, ("failure",))
        keep = stage.folder / "kept.json"
        args = (*INSTALL, "--url", stage.url, "--keep", str(keep))
        file = f"AIRBYTE_EVENTS_FORWARD_URLS_FILE={keep.with_name('kept.forward-urls')}"
        for _ in range(2):
            done = await stage.run(*args)
            assert "previous URLs that receive nothing now: 1" in done.err
            assert file in done.err
        done = await stage.run(*args, FORWARD_URLS_FILE=str(keep.with_name("kept.forward-urls")))
        assert (done.code, "nothing is sent" in done.err) == (0, False)


class TestUninstall:
    async def test_sets_back_workspace_by_workspace_though_installed_twice(self, stage: CommandStage) -> None:
        other = stage.sim.world.add_workspace("Another one")
        other.set_webhook(f"{SLACK}-2", ("failure",))
        stage.sim.workspace.set_webhook(SLACK, ("failure",))
        both = ("--workspace", stage.sim.workspace.id, "--workspace", other.id)
        for base in (stage.url, stage.url.replace("127.0.0.1", "localhost")):
            assert (await stage.run(*INSTALL, "--url", base, *both)).code == 0
        done = await stage.run("webhooks", "uninstall", "--yes", "--workspace", other.id)
        assert "remove this setting from the listener" not in done.err
        assert (other.webhook_url("failure"), other.webhook_url("success")) == (f"{SLACK}-2", None)
        assert url_of(stage, "failure") == stage.receiver.replace("127.0.0.1", "localhost")
        done = await stage.run("webhooks", "uninstall", "--yes", *both)
        assert "remove this setting from the listener" in done.err
        assert (url_of(stage, "failure"), url_of(stage, "success")) == (SLACK, None)

    async def test_sets_back_what_stood_there(self, stage: CommandStage) -> None:
        stage.sim.workspace.set_webhook(SLACK, ("failure",))
        await stage.run(*INSTALL, "--url", stage.url)
        stage.sim.workspace.set_webhook(SLACK, ("syncDisabled",))
        # With another token by now: what was installed is known all the same.
        done = await stage.run("webhooks", "uninstall", "--yes", WEBHOOK_TOKENS="another-token-of-the-webhooks")
        assert done.code == 0
        assert done.out.endswith("\nok  2 previous settings restored in Airbyte\n")
        assert [url_of(stage, kind) for kind in ("success", "failure", "syncDisabled")] == [None, SLACK, SLACK]

    async def test_leaves_what_others_have_set_since(self, stage: CommandStage) -> None:
        await stage.run(*INSTALL, "--url", stage.url)
        stage.sim.workspace.set_webhook(SLACK, ("failure",))
        await stage.run("webhooks", "uninstall", "--yes")
        assert (url_of(stage, "success"), url_of(stage, "failure")) == (None, SLACK)


class TestStatus:
    async def test_compares(self, stage: CommandStage) -> None:
        done = await stage.run("webhooks", "status", "--json")
        assert done.code == 1
        rows = {row["kind"]: row for row in json.loads(done.out)["webhooks"]}
        assert (rows["success"]["is"], rows["success"]["verdict"]) == ("nowhere", "failure")
        assert rows["syncDisabled"]["verdict"] == ""
        stage.announce()
        assert (await stage.run("webhooks", "status")).code == 0

    async def test_another_address_is_not_the_right_one(self, stage: CommandStage) -> None:
        stage.announce()
        assert (await stage.run("webhooks", "status", "--url", stage.url)).code == 0
        assert (await stage.run("webhooks", "status", "--url", "https://events.example.com")).code == 1


class TestOldReleases:
    @pytest.mark.parametrize(
        "args", [("install", "--yes"), ("install", "--dry-run"), ("status",), ("uninstall", "--yes")]
    )
    async def test_up_to_1_5_it_is_set_in_airbyte_s_pages(self, stage: CommandStage, args: tuple[str, ...]) -> None:
        old = Simulator(client_id="client", client_secret=CLIENT_SECRET, release="1.5")
        async with serve_simulator(old) as airbyte:
            done = await stage.run("webhooks", *args, AIRBYTE_URL=airbyte.url, PUBLIC_URL="https://events.example.com")
        assert (done.code, done.out) == (1, "")
        assert done.err.startswith("airbyte-events: this Airbyte's API has no notification settings")
        assert "set it in Airbyte's pages: under Settings, Notifications" in done.err
        assert "https://events.example.com/webhooks/default/TOKEN" in done.err
        assert "install sets it right" not in done.err
        assert not [call for call in old.traffic.recent() if call.method == "PATCH"]

    async def test_the_url_that_was_set_by_hand_is_tested_all_the_same(self, stage: CommandStage) -> None:
        old = Simulator(client_id="client", client_secret=CLIENT_SECRET, release="1.5", webhook_url=stage.receiver)
        async with serve_simulator(old) as airbyte:
            done = await stage.run("webhooks", "test", AIRBYTE_URL=airbyte.url)
        assert done.code == 0


class TestTest:
    async def test_every_kind_becomes_what_it_should(self, stage: CommandStage) -> None:
        done = await stage.run("webhooks", "test", "--json")
        told = json.loads(done.out)
        assert [each for each in told["notifications"] if not each["right"]] == []
        assert done.code == 0
        outcomes = Counter(each["outcome"] for each in told["notifications"])
        assert outcomes == {"unknown_job": 2, "ignored": 10, "confirmed": 1}
        assert not (await stage.run("jobs", "--json")).out.count("job_id")

    async def test_where_nobody_responds_one_error_says_what_to_check(self, stage: CommandStage) -> None:
        done = await stage.run("webhooks", "test", "--url", "http://127.0.0.1:9")
        assert (done.code, done.out) == (1, "")
        assert done.err == (
            "airbyte-events: http://127.0.0.1:9/webhooks/default/TOKEN: no response (Connection refused); check that "
            "the listener runs at that address, and that proxies pass POST requests with bodies\n"
        )

    async def test_a_token_that_the_listener_does_not_know(self, stage: CommandStage) -> None:
        done = await stage.run("webhooks", "test", WEBHOOK_TOKENS="another-token-of-the-webhooks")
        assert done.code == 1
        assert "it responds with 404" in done.out
