"""Security headers."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from airbyte_events.web.security_headers import SecurityHeaders
from airbyte_events.web.server import serving
from support.exposed import API_TOKENS, ExposedListener
from support.listener import bearer

pytestmark = pytest.mark.anyio


class TestHeaders:
    async def test_are_on_every_answer(self, exposed: ExposedListener) -> None:
        answers = [
            await exposed.http.get("/healthz"),
            await exposed.http.get("/readyz"),
            await exposed.http.get("/nowhere"),
            await exposed.get("/v1/jobs"),
            await exposed.get("/v1/jobs", "wrong"),
            await exposed.get("/v1/jobs?limit=x"),
            await exposed.http.post(exposed.webhook(), content=b"{}"),
            await exposed.http.post(exposed.webhook(), content=b""),
            await exposed.http.post(exposed.webhook("wrong"), content=b"{}"),
        ]
        assert [each.status_code for each in answers] == [200, 200, 404, 200, 401, 400, 200, 400, 404]
        for answer in answers:
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["referrer-policy"] == "no-referrer"
            assert answer.headers["cache-control"] == "no-store"
            assert "default-src 'none'; frame-ancestors 'none'" in answer.headers["content-security-policy"]
            assert "server" not in answer.headers

    async def test_no_other_site_may_read_or_ask(self, exposed: ExposedListener) -> None:
        origin = {"Origin": "https://elsewhere.example"}
        preflight = {
            **origin,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization",
        }
        answers = [
            await exposed.http.get("/healthz", headers=origin),
            await exposed.http.get("/v1/jobs", headers=origin | bearer(API_TOKENS[0])),
            await exposed.http.options("/v1/watches", headers=preflight),
            await exposed.http.options(exposed.webhook(), headers=preflight),
        ]
        assert [each.status_code for each in answers] == [200, 200, 401, 404]
        for answer in answers:
            assert not [name for name in answer.headers if name.startswith("access-control-")]

    async def test_a_page_may_load_its_own_and_nothing_inline(self) -> None:
        async def page(scope: Any, receive: Any, send: Any) -> None:
            headers = [(b"content-type", b"text/html; charset=utf-8"), (b"cache-control", b"max-age=60")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": b"<p>"})

        async with serving(SecurityHeaders(page)) as url, httpx.AsyncClient(trust_env=False) as http:
            answer = await http.get(url)
        (policy,) = answer.headers.get_list("content-security-policy")
        rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
        assert (rules["default-src"], rules["script-src"], rules["frame-ancestors"]) == ("'none'", "'self'", "'none'")
        assert "unsafe" not in policy
        assert answer.headers.get_list("cache-control") == ["max-age=60"]
