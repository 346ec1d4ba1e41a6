from __future__ import annotations

import logging
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import SecretStr

from airbyte_events.errors import SettingsError
from airbyte_events.listener.secrets import headers_of
from airbyte_events.listener.settings import InstanceSettings, Settings, is_loopback, load
from airbyte_events.listener.settings.declaration import SECRETS
from airbyte_events.listener.settings.reference import Setting, markdown, reference
from airbyte_events.listener.settings.saved import find_saved, save, saved_secret, secret_file, settings_file
from airbyte_events.store.location import StoreLocation
from airbyte_events.store.memory.store import MemoryLocation
from airbyte_events.store.postgres.url import PostgresURL
from airbyte_events.store.sqlite.store import SQLiteLocation

URL = "http://localhost:8000"
CANARY = "canary-sings-in-the-dark-and-is-never-heard"
API_TOKEN = "a" * 22
WEBHOOK_TOKEN = "w" * 22
WORKSPACE = "18dccc91-0ab1-4f72-9ed7-0b8fc27c5826"

SetEnv = Callable[..., None]


def toml(text: str) -> Path:
    Path("events.toml").write_text(text, encoding="utf-8")
    return Path("events.toml")


def refused(config: Path | None = None, **options: object) -> str:
    with pytest.raises(SettingsError) as caught:
        load(config, **options)  # type: ignore[arg-type]
    message = str(caught.value)
    assert message.isprintable()
    assert CANARY not in message + repr(caught.value)
    return message


class TestHeaders:
    """For a gateway in front of Airbyte."""

    @pytest.mark.parametrize("by_file", [False, True])
    def test_are_lines(self, setenv: SetEnv, by_file: bool) -> None:
        lines = f"CF-Access-Client-Id: {CANARY}\n\nCookie: a=1, b=2; c\n"
        Path("headers").write_text(lines)
        setenv(AIRBYTE_URL=URL, CLIENT_ID="id", CLIENT_SECRET="secret")
        setenv(**({"HEADERS_FILE": "headers"} if by_file else {"HEADERS": lines}))
        settings = load()
        assert headers_of(settings.instances["default"]) == {"CF-Access-Client-Id": CANARY, "Cookie": "a=1, b=2; c"}
        assert CANARY not in repr(settings)

    @pytest.mark.parametrize(
        "written", ['headers = ["X-One: 1", "X-Two: 2"]', "[instances.a.headers]\nX-One = '1'\nX-Two = '2'"]
    )
    def test_are_a_list_or_a_table_in_the_file(self, written: str) -> None:
        settings = load(toml(f"[instances.a]\nairbyte_url = '{URL}'\n{written}"))
        assert headers_of(settings.instances["a"]) == {"X-One": "1", "X-Two": "2"}

    def test_a_bearer_token_is_one(self, setenv: SetEnv) -> None:
        Path("token").write_text(f"{CANARY}\n")
        setenv(AIRBYTE_URL=URL, BEARER_TOKEN_FILE="token")
        assert headers_of(load().instances["default"]) == {"Authorization": f"Bearer {CANARY}"}

    @pytest.mark.parametrize(
        ("settings", "fault"),
        [
            ({"HEADERS": CANARY}, "AIRBYTE_EVENTS_HEADERS: a line is not of the form Name: value; for example"),
            ({"HEADERS": f"Host: {CANARY}"}, "AIRBYTE_EVENTS_HEADERS: the header Host can't be set"),
            (
                {"HEADERS": f"Authorization: {CANARY}", "CLIENT_ID": "id", "CLIENT_SECRET": "s"},
                "AIRBYTE_EVENTS_HEADERS: the header Authorization has Airbyte's own access token",
            ),
            (
                {"BEARER_TOKEN": CANARY, "CLIENT_ID": "id", "CLIENT_SECRET": "s"},
                "AIRBYTE_EVENTS_BEARER_TOKEN: set, but client_id or headers use",
            ),
            (
                {"BEARER_TOKEN": CANARY, "HEADERS": "authorization: Basic eDp5"},
                "AIRBYTE_EVENTS_BEARER_TOKEN: set, but client_id or headers use",
            ),
        ],
    )
    def test_wrong_ones_are_refused(self, setenv: SetEnv, settings: dict[str, str], fault: str) -> None:
        setenv(AIRBYTE_URL=URL, **settings)
        assert refused().startswith(fault)

    def test_wrong_ones_in_the_file_are_refused(self) -> None:
        file = toml(f"[instances.a]\nairbyte_url = '{URL}'\nheaders = [1, '{CANARY}']")
        assert "not lines of the form Name: value" in refused(file)


class TestOneAirbyte:
    def test_needs_no_more_than_its_url(self, setenv: SetEnv) -> None:
        setenv(AIRBYTE_URL=URL)
        settings = load()
        assert settings.instances == {"default": InstanceSettings(airbyte_url=f"{URL}/api/public/v1")}
        assert (settings.host, settings.port, settings.webhook_apart) == ("127.0.0.1", 8484, None)
        assert (settings.poll_interval, settings.poll_interval_proven) == (3, 30)
        assert (settings.poll_interval_viewed, settings.poll_interval_idle) == (13, 53)
        assert settings.api_tokens == settings.webhook_tokens == ()
        assert settings.log_level == "info"

    def test_has_credentials_and_workspaces(self, setenv: SetEnv) -> None:
        other = "0b2a7b50-9f0e-4b0c-8f5b-3c3f7f1d2a11"
        setenv(AIRBYTE_URL=URL, CLIENT_ID="id", CLIENT_SECRET=CANARY, WORKSPACE_IDS=f"{WORKSPACE}, {other},{WORKSPACE}")
        instance = load().instances["default"]
        assert instance.client_id == "id"
        assert instance.client_secret == SecretStr(CANARY)
        assert instance.workspace_ids == (WORKSPACE, other)

    def test_resolves_a_relative_token_url(self, setenv: SetEnv) -> None:
        setenv(AIRBYTE_URL=URL, TOKEN_URL="/auth/token")
        assert load().instances["default"].token_url == f"{URL}/auth/token"

    def test_missing_is_told_with_the_variable_and_an_example(self) -> None:
        message = refused()
        assert message.startswith("AIRBYTE_EVENTS_AIRBYTE_URL: not set")
        assert message.endswith("for example AIRBYTE_EVENTS_AIRBYTE_URL=http://localhost:8000/api/public/v1")

    def test_empty_variables_count_as_not_set(self, setenv: SetEnv) -> None:
        setenv(AIRBYTE_URL=URL, CLIENT_ID="", CLIENT_SECRET="  ", PORT="", NO_SUCH="")
        assert load().instances["default"].client_id is None

    def test_wrong_url_is_told_with_the_right_one(self, setenv: SetEnv) -> None:
        setenv(AIRBYTE_URL=f"{URL}/api/v1")
        assert refused().startswith("AIRBYTE_EVENTS_AIRBYTE_URL: ")
        assert f"{URL}/api/public/v1" in refused()

    @pytest.mark.parametrize("half", ["CLIENT_ID", "CLIENT_SECRET"])
    def test_half_of_the_credentials_is_refused(self, setenv: SetEnv, half: str) -> None:
        setenv(AIRBYTE_URL=URL, **{half: CANARY})
        assert refused().startswith("AIRBYTE_EVENTS_CLIENT_SECRET: ")


class TestSeveral:
    def test_come_from_tables(self, setenv: SetEnv) -> None:
        Path("secret").write_text(f"{CANARY}\n", encoding="utf-8")
        config = toml(
            f"""
            port = 9000
            poll_interval = 2.5
            api_tokens = ["{API_TOKEN}"]
            [instances.default]
            airbyte_url = "{URL}"
            client_id = "a"
            client_secret_file = "secret"
            [instances.eu-2]
            airbyte_url = "https://api.airbyte.com/v1/"
            workspace_ids = ["{WORKSPACE}"]
            """
        )
        settings = load(config)
        assert settings.config == config
        assert (settings.port, settings.poll_interval) == (9000, 2.5)
        assert settings.api_tokens == (SecretStr(API_TOKEN),)
        assert settings.instances["default"].client_secret == SecretStr(CANARY)
        assert settings.instances["eu-2"].airbyte_url == "https://api.airbyte.com/v1"
        assert settings.instances["eu-2"].workspace_ids == (WORKSPACE,)

    def test_come_from_variables_with_their_names(self, setenv: SetEnv) -> None:
        Path("secret").write_text(f"{CANARY}\n", encoding="utf-8")
        setenv(AIRBYTE_URL=URL, INSTANCES__A__B__AIRBYTE_URL=URL)
        setenv(INSTANCES__EU_2__AIRBYTE_URL="https://api.airbyte.com/v1", INSTANCES__EU_2__CLIENT_ID="a")
        setenv(INSTANCES__EU_2__CLIENT_SECRET_FILE="secret")
        config = toml(f'[instances.eu_2]\nairbyte_url = "{URL}"\nworkspace_ids = ["{WORKSPACE}"]')
        instances = load(config).instances
        assert instances.keys() == {"default", "eu_2", "a__b"}
        assert instances["eu_2"].airbyte_url == "https://api.airbyte.com/v1"
        assert instances["eu_2"].client_secret == SecretStr(CANARY)
        assert instances["eu_2"].workspace_ids == (WORKSPACE,)

    @pytest.mark.parametrize(
        ("given", "told"),
        [
            ({"INSTANCES__EU__AIRBYTE_UR": URL}, "did you mean AIRBYTE_EVENTS_INSTANCES__EU__AIRBYTE_URL?"),
            ({"INSTANCES__EU__PORT": "1"}, "AIRBYTE_EVENTS_INSTANCES__EU__PORT: no such setting"),
            ({"INSTANCES__AIRBYTE_URL": URL}, "names no instance and setting; for example AIRBYTE_EVENTS_INSTANCES__"),
            ({"INSTANCES____AIRBYTE_URL": URL}, "an instance's name has 1 to 32 characters"),
            ({"INSTANCES": "x"}, "AIRBYTE_EVENTS_INSTANCES: no such setting"),
            ({"INSTANCES__DEFAULT__AIRBYTE_URL": URL}, "set by value and by file, or by two variables"),
            ({"INSTANCES__EU__CLIENT_ID": "a"}, "AIRBYTE_EVENTS_INSTANCES__EU__AIRBYTE_URL: not set; for example"),
            ({"INSTANCES__EU__AIRBYTE_URL": "ftp://x"}, "AIRBYTE_EVENTS_INSTANCES__EU__AIRBYTE_URL: "),
        ],
        ids=lambda given: next(iter(given)) if isinstance(given, dict) else "",
    )
    def test_wrong_variables_are_named(self, setenv: SetEnv, given: dict[str, str], told: str) -> None:
        setenv(AIRBYTE_URL=URL, **given)
        assert told in refused()

    def test_file_is_named_by_a_variable(self, setenv: SetEnv) -> None:
        setenv(CONFIG=toml(f'[instances.eu]\nairbyte_url = "{URL}"'))
        assert set(load().instances) == {"eu"}

    def test_option_stands_above_variable_above_file(self, setenv: SetEnv) -> None:
        config = toml(
            'host = "127.0.0.3"\nport = 3\nlog_level = "error"\n[instances.default]\nairbyte_url = "http://f"'
        )
        setenv(HOST="127.0.0.2", PORT=2, AIRBYTE_URL="http://v")
        settings = load(config, port=1)
        assert (settings.port, settings.host, settings.log_level) == (1, "127.0.0.2", "error")
        assert settings.instances["default"].airbyte_url == "http://v/api/public/v1"

    def test_secret_in_the_environment_completes_the_table(self, setenv: SetEnv) -> None:
        setenv(CLIENT_SECRET=CANARY)
        instance = load(toml(f'[instances.default]\nairbyte_url = "{URL}"\nclient_id = "a"')).instances["default"]
        assert instance.client_secret == SecretStr(CANARY)

    @pytest.mark.parametrize(
        ("text", "start"),
        [
            ("[instances.eu]\nclient_id = 'a'", "instances.eu.airbyte_url in events.toml: not set"),
            ("[instances.eu]", "instances.eu.airbyte_url in events.toml: not set"),
            (f"[instances.EU]\nairbyte_url = '{URL}'", "instances.EU in events.toml: an instance's name"),
            (f"[instances.{'x' * 33}]\nairbyte_url = '{URL}'", f"instances.{'x' * 33} in events.toml: an instance's"),
            ("[instances]\neu = 'http://x'", "instances.eu in events.toml: not a table"),
            ("instances = 3", "instances in events.toml: not a table"),
            (f"airbyte_url = '{URL}'", "airbyte_url in events.toml: belongs in the table"),
            (
                f"[instances.eu]\nairbyte_url = '{URL}/api/v1'",
                "instances.eu.airbyte_url in events.toml: the Airbyte URL",
            ),
            (
                f"[instances.eu]\nairbyte_url = '{URL}'\nclient_id = 7",
                "instances.eu.client_id in events.toml: not a text",
            ),
            (f"port = '80x'\n[instances.eu]\nairbyte_url = '{URL}'", "port in events.toml: not a port"),
            (f"port = true\n[instances.eu]\nairbyte_url = '{URL}'", "port in events.toml: not a port"),
            (f"api_tokens = 5\n[instances.eu]\nairbyte_url = '{URL}'", "api_tokens in events.toml: not a list"),
            ("api_tokens_file = 5", "api_tokens_file in events.toml: not the name of a file"),
            (f"api_tokens = '{CANARY}'\napi_tokens_file = 'x'", "api_tokens in events.toml: set by value and by file"),
            ("config = 'x'", "config in events.toml: no such setting"),
            (f"{CANARY} = = ", "the settings file events.toml: not TOML (at line 1"),
            ('"a\\nb" = 1', "a?b in events.toml: no such setting; airbyte-events serve --help lists the settings"),
            ("[instances.eu]\ntokens = 'x'", "instances.eu.tokens in events.toml: no such setting; known are airbyte_"),
            (
                "[instances.eu]\nclient_secrets = 'x'",
                "instances.eu.client_secrets in events.toml: no such setting; did you mean client_secret?",
            ),
        ],
    )
    def test_faults_name_key_and_file(self, text: str, start: str) -> None:
        assert refused(toml(text)).startswith(start)

    def test_unreadable_files(self, setenv: SetEnv, tmp_path: Path) -> None:
        assert refused(Path("nowhere.toml")) == (
            "--config: nowhere.toml: no such file; for example --config airbyte-events.toml"
        )
        setenv(CONFIG=tmp_path)
        assert refused().startswith(f"AIRBYTE_EVENTS_CONFIG: {tmp_path}: can't be read")
        Path("events.toml").write_bytes(b"\xff")
        assert refused(Path("events.toml")).startswith("the settings file events.toml: not UTF-8")


class TestUnknown:
    @pytest.mark.parametrize(
        ("variable", "meant"),
        [
            ("PROT", "AIRBYTE_EVENTS_PORT"),
            ("CLIENT_SECRETS", "AIRBYTE_EVENTS_CLIENT_SECRET"),
            ("API_TOKEN_FILE", "AIRBYTE_EVENTS_API_TOKENS_FILE"),
            ("AIRBYTE_ULR", "AIRBYTE_EVENTS_AIRBYTE_URL"),
        ],
    )
    def test_variable_is_refused(self, setenv: SetEnv, variable: str, meant: str) -> None:
        setenv(AIRBYTE_URL=URL, **{variable: CANARY})
        assert refused() == f"AIRBYTE_EVENTS_{variable}: no such setting; did you mean {meant}?"

    def test_variable_unlike_any_is_refused(self, setenv: SetEnv) -> None:
        setenv(AIRBYTE_URL=URL, QUUX=CANARY)
        assert refused().startswith("AIRBYTE_EVENTS_QUUX: no such setting; airbyte-events serve --help")

    @pytest.mark.parametrize(
        ("text", "line"),
        [
            ("prot = 1", "prot in events.toml: no such setting; did you mean port?"),
            (
                "[instances.eu]\nclient_secrets = 1",
                "instances.eu.client_secrets in events.toml: no such setting; did you",
            ),
            ("port_file = 'x'", "port_file in events.toml: no such setting"),
        ],
    )
    def test_key_is_refused(self, text: str, line: str) -> None:
        assert refused(toml(text)).startswith(line)

    def test_variables_of_kubernetes_services_are_passed_over(self, setenv: SetEnv) -> None:
        setenv(
            AIRBYTE_URL=URL,
            PORT="tcp://10.0.0.1:8484",
            PORT_8484_TCP="tcp://10.0.0.1:8484",
            PORT_8484_TCP_PROTO="tcp",
            PORT_8484_TCP_PORT="8484",
            PORT_8484_TCP_ADDR="10.0.0.1",
            SERVICE_HOST="10.0.0.1",
            SERVICE_PORT="8484",
            SERVICE_PORT_HTTP="8484",
            WEBHOOK_PORT="tcp://10.0.0.2:8485",
            WEBHOOK_SERVICE_HOST="10.0.0.2",
        )
        assert (load().port, load().webhook_port) == (8484, None)


class TestStore:
    def test_default_is_a_file_in_the_data_folder(self, setenv: SetEnv) -> None:
        setenv(AIRBYTE_URL=URL)
        store = load().store
        assert isinstance(store, SQLiteLocation)
        assert store.path.is_absolute()
        assert store.path.parts[-2:] == ("airbyte-events", "events.db")

    @pytest.mark.parametrize(
        ("url", "store"),
        [
            ("memory:", MemoryLocation()),
            ("sqlite:///relative.db", SQLiteLocation(Path("relative.db"))),
            ("sqlite:////var/lib/a b.db", SQLiteLocation(Path("/var/lib/a b.db"))),
        ],
    )
    def test_url_is_as_sqlalchemy_writes_it(self, setenv: SetEnv, url: str, store: StoreLocation) -> None:
        setenv(AIRBYTE_URL=URL, STORE=url)
        assert load().store == store
        assert str(store) == url

    @pytest.mark.parametrize(
        ("url", "conninfo", "told"),
        [
            (f"postgresql://u:{CANARY}@h:5432/db", f"postgresql://u:{CANARY}@h:5432/db", "postgresql://h:5432/db"),
            (f"postgres://u:{CANARY}@h", f"postgres://u:{CANARY}@h", "postgresql://h/"),
            (
                f"postgresql://u%40x:%2F{CANARY}@[::1]:1,a.b:2/db?schema=x_1&sslmode=verify-full",
                f"postgresql://u%40x:%2F{CANARY}@[::1]:1,a.b:2/db?sslmode=verify-full",
                "postgresql://[::1]:1,a.b:2/db?schema=x_1",
            ),
            (f"postgresql:///db?host=/run/x&password={CANARY}", None, "postgresql:///db"),
            ("postgresql://", "postgresql://", "postgresql:///"),
        ],
    )
    def test_i7_a_database_is_named_and_its_password_is_shown_nowhere(
        self, setenv: SetEnv, url: str, conninfo: str | None, told: str
    ) -> None:
        setenv(AIRBYTE_URL=URL, STORE=url)
        store = load().store
        assert isinstance(store, PostgresURL)
        assert store.conninfo == (conninfo or url)
        assert str(store) == told
        assert CANARY not in repr(store) + repr(load())

    def test_a_missing_driver_is_named(self) -> None:
        code = (
            "import sys; sys.modules['psycopg'] = None\n"
            "from airbyte_events.errors import StoreError\n"
            "from airbyte_events.store.registry import store_location\n"
            "try: store_location('postgresql://h/d').store()\n"
            "except StoreError as exc: print(exc)"
        )
        said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        assert "pip install 'airbyte-events[postgres]'" in said

    def test_a_database_is_named_by_file(self, setenv: SetEnv) -> None:
        Path("store").write_text(f"postgresql://u:{CANARY}@h/db\n")
        setenv(AIRBYTE_URL=URL, STORE_FILE="store")
        assert str(load().store) == "postgresql://h/db"

    @pytest.mark.parametrize(
        ("url", "fault"),
        [
            (f"mysql://u:{CANARY}@h/db", "no such store in this version, which has sqlite, postgresql and memory"),
            (f"postgresql://u:{CANARY}/1@h/db", "a / %2F"),
            (f"postgresql://u:a@{CANARY}@h/db", "an @ %40"),
            (f"postgresql://u:1/{CANARY}@h/db", "a / %2F"),
            (f"postgresql://u:1?{CANARY}@h/db", "a ? %3F"),
            (f"postgresql://u:{CANARY}%zz@h/db", "a % is written %25"),
            (f"postgresql://u:{CANARY}@h/db?schema=Events", "small letters"),
            (f"postgresql://u:{CANARY}@h/db?schema=pg_x", "no pg_ first"),
            ("postgresql:", "not written postgresql://user:password@host"),
            ("events.db", "no such store"),
            ("sqlite", "no such store"),
            ("sqlite://events.db", "three slashes"),
            ("sqlite:events.db", "three slashes"),
            ("sqlite://", "memory is written memory:"),
            ("sqlite:///:memory:", "memory is written memory:"),
            ("memory://", "memory is written memory:"),
            ("sqlite:///~/events.db", "without ~"),
            ("sqlite:///a.db?mode=ro", "without ~, ?"),
        ],
    )
    def test_other_urls_are_refused(self, setenv: SetEnv, url: str, fault: str) -> None:
        setenv(AIRBYTE_URL=URL, STORE=url)
        assert fault in refused()
        assert refused().endswith("for example AIRBYTE_EVENTS_STORE=sqlite:////var/lib/airbyte-events/events.db")


class TestListening:
    @pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost", "LOCALHOST"])
    def test_loopback_needs_no_tokens(self, setenv: SetEnv, host: str) -> None:
        setenv(AIRBYTE_URL=URL, HOST=host)
        assert is_loopback(load().host)

    @pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "events.example.com", "localhost.example.com"])
    def test_beyond_loopback_needs_both_kinds(self, setenv: SetEnv, host: str) -> None:
        setenv(AIRBYTE_URL=URL)
        assert refused(host=host).startswith("AIRBYTE_EVENTS_API_TOKENS: not set")
        setenv(API_TOKENS=API_TOKEN)
        assert refused(host=host).startswith("AIRBYTE_EVENTS_WEBHOOK_TOKENS: not set")
        setenv(WEBHOOK_TOKENS=WEBHOOK_TOKEN)
        assert load(host=host).host == host

    def test_receiver_beyond_loopback_needs_its_own_kind_only(self, setenv: SetEnv) -> None:
        setenv(AIRBYTE_URL=URL, WEBHOOK_HOST="0.0.0.0", WEBHOOK_PORT=8485)
        assert refused().startswith("AIRBYTE_EVENTS_WEBHOOK_TOKENS: not set")
        setenv(WEBHOOK_TOKENS=WEBHOOK_TOKEN)
        assert load().webhook_apart == ("0.0.0.0", 8485)

    def test_receiver_on_loopback_and_the_rest_beyond(self, setenv: SetEnv) -> None:
        setenv(AIRBYTE_URL=URL, HOST="0.0.0.0", WEBHOOK_HOST="127.0.0.1", WEBHOOK_PORT=8485, API_TOKENS=API_TOKEN)
        assert load().webhook_apart == ("127.0.0.1", 8485)

    def test_receiver_with_a_port_of_its_own(self, setenv: SetEnv) -> None:
        setenv(AIRBYTE_URL=URL, WEBHOOK_PORT=8485)
        assert load().webhook_apart == ("127.0.0.1", 8485)
        setenv(WEBHOOK_PORT=8484)
        assert refused().startswith("AIRBYTE_EVENTS_WEBHOOK_PORT: the same address and port")

    def test_receiver_with_an_address_wants_a_port(self, setenv: SetEnv) -> None:
        setenv(AIRBYTE_URL=URL, WEBHOOK_HOST="127.0.0.2")
        assert refused().startswith("AIRBYTE_EVENTS_WEBHOOK_PORT: not set")

    def test_tokens_are_lists(self, setenv: SetEnv) -> None:
        Path("tokens").write_text(f"{'x' * 22}\n{'y' * 22}\n", encoding="utf-8")
        setenv(AIRBYTE_URL=URL, API_TOKENS=f"{API_TOKEN},{'b' * 22},", WEBHOOK_TOKENS_FILE="tokens")
        assert [token.get_secret_value() for token in load().api_tokens] == [API_TOKEN, "b" * 22]
        assert [token.get_secret_value() for token in load().webhook_tokens] == ["x" * 22, "y" * 22]

    @pytest.mark.parametrize("token", ["a" * 21, "a" * 257, "a" * 22 + "/", "a" * 22 + "ä", f"{CANARY}+"])
    def test_weak_tokens_are_refused(self, setenv: SetEnv, token: str) -> None:
        setenv(AIRBYTE_URL=URL, API_TOKENS=f"{API_TOKEN},{token}")
        assert refused().startswith("AIRBYTE_EVENTS_API_TOKENS: a token is 22 to 256")

    def test_no_token_is_of_both_kinds(self, setenv: SetEnv) -> None:
        setenv(AIRBYTE_URL=URL, API_TOKENS=CANARY, WEBHOOK_TOKENS=f"{WEBHOOK_TOKEN},{CANARY}")
        assert refused().startswith("AIRBYTE_EVENTS_WEBHOOK_TOKENS: holds a token that is an API token")

    @pytest.mark.parametrize("token", [API_TOKEN, WEBHOOK_TOKEN])
    def test_what_opens_the_metrics_opens_nothing_else(self, setenv: SetEnv, token: str) -> None:
        setenv(AIRBYTE_URL=URL, API_TOKENS=API_TOKEN, WEBHOOK_TOKENS=WEBHOOK_TOKEN, METRICS_TOKENS=token)
        assert refused().startswith("AIRBYTE_EVENTS_METRICS_TOKENS: holds a token that is an API or webhook token")

    def test_certificate_and_key_go_together(self, setenv: SetEnv) -> None:
        Path("file.pem").touch()
        setenv(AIRBYTE_URL=URL, TLS_CERTFILE="file.pem")
        assert refused().startswith("AIRBYTE_EVENTS_TLS_KEYFILE: not set, but tls_certfile is")
        setenv(TLS_KEYFILE="other.pem")
        assert re.match(r"AIRBYTE_EVENTS_TLS_KEYFILE: the file that it names in \S+: no such file; for ", refused())
        setenv(TLS_KEYFILE="file.pem")
        assert load().tls_keyfile == Path("file.pem")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PORT", "80a"),
        ("PORT", "65536"),
        ("PORT", "-1"),
        ("PORT", "80.5"),
        ("HOST", "10.0.0"),
        ("HOST", "[::1]"),
        ("HOST", "a b"),
        ("HOST", "*"),
        ("POLL_INTERVAL", "ten"),
        ("POLL_INTERVAL", "0"),
        ("POLL_INTERVAL", "nan"),
        ("POLL_INTERVAL_IDLE", "inf"),
        ("POLL_INTERVAL_PROVEN", "3601"),
        ("LOG_LEVEL", "trace"),
        ("WORKSPACE_IDS", f"{WORKSPACE},mine"),
        ("TLS_KEYFILE", CANARY),
        ("TOKEN_URL", f"https://u:{CANARY}@h/token"),
        ("AIRBYTE_URL", f"https://u:{CANARY}@h"),
        ("AIRBYTE_URL", f"https://h/?token={CANARY}"),
        ("CLIENT_SECRET_FILE", CANARY),
        ("API_TOKENS_FILE", CANARY),
        ("METRICS_TOKENS_FILE", CANARY),
        ("CONFIG", CANARY),
        ("PORT", CANARY),
        ("LOG_LEVEL", CANARY),
    ],
)
def test_wrong_values_are_told_in_one_line_that_names_the_variable(setenv: SetEnv, variable: str, value: str) -> None:
    setenv(AIRBYTE_URL=URL)
    setenv(**{variable: value})
    message = refused()
    assert message.startswith(f"AIRBYTE_EVENTS_{variable}: ")
    assert re.search(r"; for example |: write ", message)


def test_wrong_options_are_named_as_options(setenv: SetEnv) -> None:
    setenv(AIRBYTE_URL=URL, PORT=9000)
    assert refused(port=70000).endswith("from 0 to 65535; for example --port 8484")
    assert refused(host="a b").startswith("--host: not an IP address")


BY_FILE = sorted(SECRETS & (set(Settings.model_fields) | set(InstanceSettings.model_fields)))
"""The settings that the environment can give by file."""

FILES = ["CONFIG", "TLS_CERTFILE"]
"""Those that are files."""


class TestSecretFiles:
    def test_value_and_file_together_are_refused(self, setenv: SetEnv) -> None:
        setenv(AIRBYTE_URL=URL, CLIENT_ID="a", CLIENT_SECRET=CANARY, CLIENT_SECRET_FILE="x")
        assert refused().startswith("AIRBYTE_EVENTS_CLIENT_SECRET: set by value and by file")

    @pytest.mark.parametrize(
        ("content", "fault"), [(b"\n", "empty"), (b"\xff" * 22, "not a file of UTF-8"), (b"a" * 65537, "too large")]
    )
    def test_content_is_a_secret(self, setenv: SetEnv, content: bytes, fault: str) -> None:
        Path("secret").write_bytes(content)
        setenv(AIRBYTE_URL=URL, CLIENT_ID="a", CLIENT_SECRET_FILE="secret")
        assert refused().startswith("AIRBYTE_EVENTS_CLIENT_SECRET_FILE: ")
        assert fault in refused()

    def test_weak_tokens_in_a_file_are_told_of_that_file_variable(self, setenv: SetEnv) -> None:
        Path("secret").write_text("short", encoding="utf-8")
        setenv(AIRBYTE_URL=URL, API_TOKENS_FILE="secret")
        file = Path("secret").absolute()
        assert refused().startswith(f"AIRBYTE_EVENTS_API_TOKENS_FILE: {file}: a token is")
        config = toml(f'webhook_tokens_file = "secret"\n[instances.eu]\nairbyte_url = "{URL}"')
        setenv(API_TOKENS_FILE="")
        assert refused(config).startswith(f"webhook_tokens_file in events.toml: {file}: a token is")

    @pytest.mark.parametrize("variable", [f"{name.upper()}_FILE" for name in BY_FILE] + FILES)
    def test_the_error_has_the_path_of_what_can_not_be_read(
        self, setenv: SetEnv, tmp_path: Path, variable: str
    ) -> None:
        setenv(AIRBYTE_URL=URL)
        (tmp_path / "folder").mkdir()
        for name, fault in (("folder/none", "no such file"), ("folder", "")):
            for given in (name, tmp_path / name):
                setenv(**{variable: given})
                assert refused().startswith(f"AIRBYTE_EVENTS_{variable}: {tmp_path / name}: {fault}")

    @pytest.mark.parametrize("variable", [f"{name.upper()}_FILE" for name in BY_FILE] + FILES)
    @pytest.mark.parametrize("value", [CANARY, f"/{CANARY}", f"{CANARY}/x", f"https://u:{CANARY}@h/x", CANARY * 100])
    def test_i7_what_is_no_path_may_be_a_secret(
        self, setenv: SetEnv, tmp_path: Path, variable: str, value: str
    ) -> None:
        setenv(AIRBYTE_URL=URL, **{variable: value})
        place = "/" if value.startswith("/") else str(tmp_path)
        assert refused().startswith(f"AIRBYTE_EVENTS_{variable}: the file that it names in {place}: ")

    @pytest.mark.parametrize("content", [None, b"", b"\xff", f"{CANARY} ü".encode()])
    def test_the_error_about_a_table_has_the_path(self, content: bytes | None) -> None:
        Path("etc").mkdir()
        file = Path("etc/secret").absolute()
        if content is not None:
            file.write_bytes(content)
        instance = f'[instances.eu]\nairbyte_url = "{URL}"\n'
        # Of tokens, the content is wrong, too; so it is of URLs.
        for line, label in (
            ('api_tokens_file = "etc/secret"\n', "api_tokens_file"),
            (f'{instance}forward_urls_file = "etc/secret"\n', "instances.eu.forward_urls_file"),
            ('[[notify]]\nname = "a"\ntype = "slack"\nurl_file = "etc/secret"\n', "notify.a.url_file"),
        ):
            config = toml(line if instance in line else line + instance)
            assert refused(config).startswith(f"{label} in events.toml: {file}: ")

    def test_relative_names_in_the_settings_file_count_from_its_folder(self, tmp_path: Path) -> None:
        folder = tmp_path / "etc"
        folder.mkdir()
        (folder / "secret").write_text(API_TOKEN, encoding="utf-8")
        config = folder / "events.toml"
        config.write_text(f'api_tokens_file = "secret"\n[instances.eu]\nairbyte_url = "{URL}"', encoding="utf-8")
        assert load(config).api_tokens == (SecretStr(API_TOKEN),)


def test_i7_no_secret_in_repr_dump_or_debug_log(setenv: SetEnv, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    setenv(AIRBYTE_URL=URL, CLIENT_ID="a", CLIENT_SECRET=CANARY, API_TOKENS=f"{CANARY}-api")
    setenv(STORE=f"postgresql://u:{CANARY}@h/db")
    config = toml(
        f'webhook_tokens = ["{CANARY}-hook"]\n[instances.eu]\nairbyte_url = "{URL}"\nclient_id = "a"\n'
        f'client_secret = "{CANARY}"'
    )
    settings = load(config)
    assert settings.api_tokens[0].get_secret_value().startswith(CANARY)
    assert settings.webhook_tokens[0].get_secret_value().startswith(CANARY)
    shown = [repr(settings), str(settings), str(settings.model_dump()), settings.model_dump_json(), caplog.text]
    assert not [text for text in shown if CANARY in text]


def test_settings_made_in_python_read_no_environment(setenv: SetEnv) -> None:
    setenv(PORT="nonsense", CONFIG="nowhere", QUUX="1")
    settings = Settings(instances={"eu": InstanceSettings(airbyte_url=URL)}, store="memory:")
    assert (settings.port, settings.store.kind, list(settings.instances)) == (8484, "memory", ["eu"])


def test_values_do_not_change(setenv: SetEnv) -> None:
    setenv(AIRBYTE_URL=URL)
    settings = load()
    with pytest.raises(ValueError, match="frozen"):
        settings.port = 1  # type: ignore[misc]


class TestOfCommands:
    def test_a_listener_passes_over_them(self, setenv: SetEnv, tmp_path: Path) -> None:
        (tmp_path / "token").write_text(CANARY, encoding="utf-8")
        setenv(
            AIRBYTE_URL=URL,
            LISTENER_URL="https://events.example.com/",
            LISTENER_TOKEN_FILE=tmp_path / "token",
            PUBLIC_URL="https://hooks.example.com",
        )
        settings = load()
        assert settings.listener_url == "https://events.example.com"
        assert settings.listener_token is not None
        assert settings.listener_token.get_secret_value() == CANARY
        assert CANARY not in repr(settings)

    @pytest.mark.parametrize("name", ["LISTENER_URL", "PUBLIC_URL"])
    @pytest.mark.parametrize(
        "url", ["x", "ftp://x", "https://", f"https://{CANARY}@x", f"https://x/webhooks/a/{CANARY}"]
    )
    def test_what_is_no_address_is_refused(self, setenv: SetEnv, name: str, url: str) -> None:
        setenv(AIRBYTE_URL=URL, **{name: url})
        assert refused().startswith(f"AIRBYTE_EVENTS_{name}: ")


class TestReference:
    def test_page_holds_the_settings_of_the_code(self) -> None:
        page = Path(__file__).parents[3] / "docs" / "settings.md"
        assert markdown() in page.read_text(encoding="utf-8"), (
            "run: python -m airbyte_events.listener.settings.reference"
        )

    def test_every_setting_is_told(self) -> None:
        names = {line.variable for line in reference()}
        fields = set(InstanceSettings.model_fields) | set(Settings.model_fields) - {"instances", "notify"}
        fields -= {"connections"}
        assert names == {f"AIRBYTE_EVENTS_{name.upper()}" for name in fields}
        assert all(line.meaning and line.example for line in reference())

    def test_page_names_no_home_folder(self) -> None:
        assert str(Path.home()) not in markdown()

    @pytest.mark.parametrize(
        "line", [line for line in reference() if " " not in line.example], ids=lambda line: line.variable
    )
    def test_examples_are_right(self, setenv: SetEnv, line: Setting) -> None:
        name = line.variable.removeprefix("AIRBYTE_EVENTS_")
        setenv(AIRBYTE_URL=URL, API_TOKENS=API_TOKEN, WEBHOOK_TOKENS=WEBHOOK_TOKEN, CLIENT_ID="a", CLIENT_SECRET="b")
        example = line.example
        if name in {"CONFIG", "TLS_CERTFILE", "TLS_KEYFILE"}:
            Path("file").touch()
            setenv(TLS_CERTFILE="file", TLS_KEYFILE="file")
            example = "file"
        if name == "WEBHOOK_HOST":
            setenv(WEBHOOK_PORT=8485)
        setenv(**{name: example})
        assert load()


def test_no_saved_settings_name_one_airbyte_beside_the_secret_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    save({"airbyte_url": "https://a.example.com", "client_secret": SecretStr("secret-of-a")})
    assert find_saved({}) == settings_file()
    # Writing the next secret fails after this one is written.
    secret_file("bearer_token").mkdir()
    with pytest.raises(SettingsError):
        save(
            {
                "airbyte_url": "https://b.example.com",
                "client_secret": SecretStr("secret-of-b"),
                "bearer_token": SecretStr("token-of-b"),
            }
        )
    assert saved_secret("client_secret")[0].get_secret_value() == "secret-of-b"
    assert find_saved({}) is None
