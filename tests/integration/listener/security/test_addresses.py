"""Client addresses, and who may send webhooks."""

from __future__ import annotations

import httpx
import pytest

from airbyte_events.web.rate_limit import REFUSALS_AT_ONCE
from support.exposed import listening, shown

pytestmark = pytest.mark.anyio


class TestAddresses:
    async def test_the_receiver_is_there_for_those_allowed_only(self) -> None:
        async with listening(webhook_allow=("192.0.2.0/24",), trusted_proxies=("127.0.0.1",)) as exposed:

            async def post(*forwarded: str) -> httpx.Response:
                headers = [("X-Forwarded-For", line) for line in forwarded]
                return await exposed.http.post(exposed.webhook(), content=b"{}", headers=headers)

            assert (await post("192.0.2.1")).status_code == 200
            assert (await post("203.0.113.1, 192.0.2.1")).status_code == 200
            elsewhere = [await post(), await post("203.0.113.1"), await post("192.0.2.1, 203.0.113.1"), await post("x")]
            nowhere = await exposed.http.post("/nowhere")
            assert {shown(each) for each in elsewhere} == {shown(nowhere)}
            # It is about the receiver: who reads the feed shows a token.
            assert (await exposed.get("/v1/jobs")).status_code == 200

    async def test_nobody_is_believed_unless_configured(self) -> None:
        async with listening(webhook_allow=("192.0.2.0/24",)) as exposed:
            for header in ("X-Forwarded-For", "X-Real-IP", "Forwarded"):
                headers = {header: "for=192.0.2.1" if header == "Forwarded" else "192.0.2.1"}
                assert (await exposed.http.post(exposed.webhook(), content=b"{}", headers=headers)).status_code == 404
        async with listening(webhook_allow=("127.0.0.1", "::1")) as exposed:
            assert (await exposed.http.post(exposed.webhook(), content=b"{}")).status_code == 200

    async def test_refusals_are_counted_for_whom_a_trusted_proxy_names(self) -> None:
        async with listening(trusted_proxies=("127.0.0.0/8",)) as exposed:

            async def get(address: str) -> int:
                return (await exposed.http.get("/nowhere", headers={"X-Forwarded-For": address})).status_code

            found = [await get("192.0.2.1") for _ in range(REFUSALS_AT_ONCE + 2)]
            assert set(found) == {404, 429}
            assert await get("192.0.2.2") == 404
