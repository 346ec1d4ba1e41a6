"""Tokens that open one door each, and refusals that say nothing."""

from __future__ import annotations

import pytest

from airbyte_events.errors import SettingsError
from airbyte_events.listener.settings import load
from airbyte_events.web.rate_limit import REFUSALS_AT_ONCE
from support.exposed import API_TOKENS, WEBHOOK_TOKENS, ExposedListener, body, shown
from support.listener import bearer

pytestmark = pytest.mark.anyio


class TestTokens:
    async def test_each_of_several_opens_its_own_door_only(self, exposed: ExposedListener) -> None:
        for token in API_TOKENS:
            assert (await exposed.get("/v1/jobs", token)).status_code == 200
            assert (await exposed.http.post(exposed.webhook(token), content=b"{}")).status_code == 404
        for token in WEBHOOK_TOKENS:
            assert (await exposed.get("/v1/jobs", token)).status_code == 401
            assert (await exposed.http.post(exposed.webhook(token), content=b"{}")).status_code == 200

    async def test_one_404_whatever_is_wrong(self, exposed: ExposedListener) -> None:
        right, wrong = exposed.webhook(), exposed.webhook("wrong-token-of-some-length")
        asked = [
            ("POST", wrong),
            ("POST", exposed.webhook(instance="other")),
            ("POST", exposed.webhook("x", "other")),
            *((method, path) for path in (right, wrong) for method in ("GET", "PUT", "OPTIONS", "DELETE")),
            ("POST", "/webhooks/"),
            ("GET", "/nowhere"),
            ("POST", "/healthz"),
            ("GET", "/v1"),
            ("GET", "/docs"),
        ]
        assert len(asked) < REFUSALS_AT_ONCE
        answers = {shown(await exposed.http.request(method, path, content=b"{}")) for method, path in asked}
        assert [answer[0] for answer in answers] == [404]

    async def test_401_is_one_whether_there_is_such_a_path_or_not(self, exposed: ExposedListener) -> None:
        paths = ("/v1/jobs", "/v1/nothing", "/v1/jobs/default/1", "/v1/watches", "/v1/")
        answers = {shown(await exposed.get(path, "wrong-token-of-some-length")) for path in paths}
        assert [answer[0] for answer in answers] == [401]

    async def test_too_many_wrong_ones_lock_nobody_out(self, exposed: ExposedListener) -> None:
        for _ in range(REFUSALS_AT_ONCE):
            await exposed.http.post(exposed.webhook("wrong"), content=b"{}")
        refused = [
            await exposed.http.post(exposed.webhook("wrong"), content=b"{}"),
            await exposed.http.post(exposed.webhook(instance="other"), content=b"{}"),
            await exposed.http.get(exposed.webhook()),
            await exposed.http.get("/nowhere"),
            await exposed.get("/v1/jobs", "wrong"),
        ]
        assert [answer.status_code for answer in refused] == [429] * 5
        assert len({shown(answer) for answer in refused}) == 1
        assert "retry-after" in refused[0].headers
        # From the same address, after as many wrong ones as you like:
        assert (await exposed.http.post(exposed.webhook(), content=body(1))).status_code == 202
        assert (await exposed.get("/v1/jobs")).status_code == 200
        assert (await exposed.get("/v1/jobs/default/77")).status_code == 404
        assert (await exposed.get("/v1/nothing")).status_code == 404
        await exposed.healthy()

    async def test_half_a_surrogate_pair_is_an_error_of_whoever_sends_it(self, exposed: ExposedListener) -> None:
        """JSON and percent signs can spell what no UTF-8 text holds."""
        headers = bearer(API_TOKENS[0])
        halves = ("\\ud800", "\\udfff", "x\\udc80")
        for half in halves:
            for content in (f'{{"jobs": [{{"instance": "{half}", "job_id": 1}}]}}', f'{{"{half}": []}}', f'"{half}"'):
                answer = await exposed.http.post("/v1/watches", content=content, headers=headers)
                assert answer.status_code == 400, content
            assert (await exposed.http.post(exposed.webhook(), content=f'{{"text": "{half}"}}')).status_code == 200
        for path in ("/v1/events?after=%ED%A0%80", "/v1/jobs?%ED%A0%80=1", "/v1/jobs?limit=%ED%A0%80"):
            assert (await exposed.get(path)).status_code == 400, path
        assert (await exposed.get("/v1/jobs?instance=%ED%A0%80")).status_code == 200
        assert (await exposed.get("/v1/jobs/%ED%A0%80/1")).status_code == 404
        assert (await exposed.http.post(exposed.webhook("%ED%A0%80"), content=b"{}")).status_code == 404
        assert (
            await exposed.http.get("/v1/jobs", headers={b"Authorization": b"Bearer \xed\xa0\x80"})
        ).status_code == 401
        resumed = [(name.encode(), value.encode()) for name, value in headers.items()]
        resumed.append((b"Last-Event-ID", b"\xed\xa0\x80"))
        assert (await exposed.http.get("/v1/events", headers=resumed)).status_code == 400


def test_beyond_loopback_nobody_listens_without_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRBYTE_EVENTS_AIRBYTE_URL", "http://127.0.0.1:9")
    for host in ("0.0.0.0", "::", "192.0.2.1", "events.example.com"):
        with pytest.raises(SettingsError, match="TOKENS"):
            load(host=host)
