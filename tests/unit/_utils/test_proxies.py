"""What the environment says of proxies."""

from __future__ import annotations

import os

import httpx
import pytest

from airbyte_events._utils.proxies import Bypass, Environment
from airbyte_events.errors import SettingsError

PROXY = "http://proxy:3128"


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [each for each in os.environ if each.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("no_proxy", "held", "others"),
    [
        (
            "localhost,127.0.0.0/8,::1/128",
            ["localhost", "127.9.9.9:8000", "[::1]"],
            ["128.0.0.1", "[::2]", "a.localhost"],
        ),
        ("10.0.0.0/8, 192.168.0.7", ["10.1.2.3", "192.168.0.7"], ["11.0.0.1", "192.168.0.8", "10.example.com"]),
        ("10.1.2.3/8", ["10.200.0.1"], ["11.0.0.1"]),
        ("fe80::/10,[2001:db8::]/32", ["[fe80::1]", "[2001:db8::7]"], ["[fd00::1]"]),
        ("[::1],::2", ["[::1]", "[::2]"], ["[::3]"]),
        ("10.0.0.0/8", ["[::ffff:10.0.0.1]"], ["[::ffff:11.0.0.1]"]),
        ("example.com", ["example.com", "EXAMPLE.com", "a.b.example.com", "example.com."], ["anexample.com", "com"]),
        (".example.com", ["a.example.com"], ["example.com"]),
        ("*.example.com", ["a.example.com"], ["example.com"]),
        ("a.example:8080 b.example", ["a.example:8080", "b.example", "b.example:1"], ["a.example", "a.example:80"]),
        ("[::1]:8080,10.0.0.1:80", ["[::1]:8080", "10.0.0.1", "10.0.0.1:80"], ["[::1]", "10.0.0.1:81"]),
        ("http://a.example,all://b.example", ["a.example", "b.example"], ["c.example"]),
        ("https://a.example", [], ["a.example"]),
        ("a, *", ["b", "[::1]"], []),
        ("", [], ["a"]),
    ],
)
def test_no_proxy_holds_for_names_addresses_and_networks(no_proxy: str, held: list[str], others: list[str]) -> None:
    bypass = Bypass.parse(no_proxy)
    for expected, hosts in ((True, held), (False, others)):
        assert {host: bypass.holds(httpx.URL(f"http://{host}/")) for host in hosts} == dict.fromkeys(hosts, expected)


@pytest.mark.parametrize("wrong", ["10.0.0.0/99", "[::1", "a/b", "::g", "a:b", "a..b", ":80", "http://"])
def test_entries_that_can_be_no_host_are_left_out_and_logged(wrong: str, caplog: pytest.LogCaptureFixture) -> None:
    bypass = Bypass.parse(f"a.example,{wrong},b.example")
    assert [bypass.holds(httpx.URL(f"http://{host}/")) for host in ("a.example", "b.example", "c")] == [
        True,
        True,
        False,
    ]
    assert "NO_PROXY has entries that are neither hosts nor networks, which are ignored: count=1" in caplog.text


@pytest.mark.parametrize(
    ("variables", "proxies"),
    [
        ({}, {}),
        ({"HTTP_PROXY": PROXY}, {"http": PROXY}),
        ({"https_proxy": "proxy:3128"}, {"https": PROXY}),
        ({"ALL_PROXY": f" {PROXY}\n"}, {"http": PROXY, "https": PROXY}),
        ({"ALL_PROXY": "http://a", "HTTPS_PROXY": "http://b"}, {"http": "http://a", "https": "http://b"}),
        ({"HTTP_PROXY": "http://a", "http_proxy": "http://b"}, {"http": "http://b"}),
        ({"HTTP_PROXY": "http://u:p%23%40@proxy:3128/"}, {"http": "http://u:p%23%40@proxy:3128/"}),
        # What no request would take is not looked at.
        (
            {"HTTP_PROXY": "http://a", "HTTPS_PROXY": "http://b", "ALL_PROXY": "socks://c"},
            {"http": "http://a", "https": "http://b"},
        ),
        ({"ALL_PROXY": "socks://c", "NO_PROXY": "*"}, {}),
    ],
)
def test_a_request_s_scheme_has_its_own_proxy_or_that_of_all(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], proxies: dict[str, str]
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert Environment.read().proxies == proxies


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "all_proxy", "Http_Proxy"])
@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("http://user:sec#ret@proxy:3128", "not a proxy's address"),
        ("user:sec#ret@proxy:3128", "not a proxy's address"),
        ("http://user:77#ret@proxy:3128", "not a proxy's address"),
        ("http://user:77/ret@proxy:3128", "not a proxy's address"),
        ("http://user:sec?ret@proxy:3128", "not a proxy's address"),
        ("http://[sec::ret", "not a proxy's address"),
        ("http://", "not a proxy's address"),
        ("http://sec ret@proxy:x", "not a proxy's address"),
        ("socks://user:secret@proxy:1080", "'socks' is not one of http, https, socks5, socks5h"),
        ("ftp://secret", "'ftp' is not one of"),
        ("sec#ret://proxy", "what stands before :// is not one of"),
        ("socks5h://user:secret@proxy:1080", "pip install 'httpx[socks]'"),
    ],
)
def test_what_can_t_be_used_is_one_line_that_names_the_variable_and_no_secret(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, says: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        Environment.read()
    text = str(caught.value)
    assert text.startswith(f"{name}: ")
    assert says in text
    assert f"for example {name}=http://proxy.example.com:3128" in text
    assert "\n" not in text
    assert not any(part in text for part in ("user:", "sec", "ret@", "77"))
    assert "sec" not in repr(Environment({"http": value}))
