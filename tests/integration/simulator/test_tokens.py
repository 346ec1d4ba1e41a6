"""Who may ask."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = pytest.mark.anyio

CREDENTIALS = {"client_id": "me", "client_secret": "s3cret"}
TOKEN = "/api/public/v1/applications/token"


async def test_a_token_lets_in(rehearse: Any) -> None:
    async with rehearse(**CREDENTIALS) as airbyte:
        refused = await airbyte.get("/jobs")
        assert refused.status_code == 401
        assert refused.json().keys() == {"message", "_links", "_embedded"}
        answer = (await airbyte.http.post(TOKEN, json=CREDENTIALS)).json()
        assert (answer["token_type"], answer["expires_in"]) == ("Bearer", 900)
        airbyte.http.headers["Authorization"] = f"Bearer {answer['access_token']}"
        assert (await airbyte.get("/jobs")).status_code == 200
        assert await airbyte.control("POST", "/tokens/expire") == {"expired": 1}
        assert (await airbyte.get("/jobs")).status_code == 401
        assert (await airbyte.get("/health")).status_code == 200


async def test_the_endpoint_takes_forms(rehearse: Any) -> None:
    async with rehearse(**CREDENTIALS) as airbyte:
        answer = await airbyte.http.post(TOKEN, data={"grant_type": "client_credentials", **CREDENTIALS})
        assert answer.json()["access_token"]


async def test_a_token_holds_shorter_than_it_claims(rehearse: Any) -> None:
    async with rehearse(**CREDENTIALS, token_lifetime=0.000001) as airbyte:
        answer = (await airbyte.http.post(TOKEN, json=CREDENTIALS)).json()
        assert answer["expires_in"] == 900
        airbyte.http.headers["Authorization"] = f"Bearer {answer['access_token']}"
        assert (await airbyte.get("/jobs")).status_code == 401


@pytest.mark.parametrize("wrong", [{"client_secret": "x"}, {"client_id": "x"}, {"client_secret": "ü"}])
async def test_wrong_credentials(rehearse: Any, wrong: dict[str, str]) -> None:
    async with rehearse(**CREDENTIALS) as airbyte:
        answer = await airbyte.http.post(TOKEN, json={**CREDENTIALS, **wrong})
        assert answer.status_code == 401
        assert answer.json().keys() == {"errorId"}


@pytest.mark.parametrize("wrong", [{"client_secret": "x"}, {"client_id": "x"}])
async def test_simple_authentication_refuses_wrong_credentials_with_400(rehearse: Any, wrong: dict[str, str]) -> None:
    async with rehearse(**CREDENTIALS, simple_auth=True) as airbyte:
        answer = await airbyte.http.post(TOKEN, json={**CREDENTIALS, **wrong})
        assert (answer.status_code, answer.json()["message"]) == (400, "Bad Request")
        assert [error["message"] for error in answer.json()["_embedded"]["errors"]] == ["Invalid client id or token"]
        assert (await airbyte.http.post(TOKEN, json=CREDENTIALS)).is_success
        refused = await airbyte.get("/jobs")
        assert (refused.status_code, refused.json().keys()) == (401, {"message", "_links", "_embedded"})


async def test_missing_credentials(rehearse: Any) -> None:
    async with rehearse(**CREDENTIALS) as airbyte:
        assert (await airbyte.http.post(TOKEN, json={"client_id": "me"})).status_code == 400


async def test_without_credentials_there_is_no_endpoint(airbyte: Any) -> None:
    assert (await airbyte.http.post(TOKEN, json=CREDENTIALS)).status_code == 404
    assert (await airbyte.get("/jobs")).status_code == 200
