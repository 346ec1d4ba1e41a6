"""The URLs that Airbyte had before the listener's, in a file to restore them from."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from airbyte_events._utils import json_values
from airbyte_events._utils.files import write_private
from airbyte_events.cli.webhooks.workspaces import KINDS, Change, ReceiverURLs, Webhook, Workspace, digest
from airbyte_events.errors import SettingsError
from airbyte_events.listener.settings.saved import data_folder


def default_file(instance: str) -> Path:
    """Return the file that is used unless ``--keep`` names one."""
    return data_folder() / f"webhooks-{instance}.json"


class Backup:
    """A file with the previous webhooks of Airbyte's workspaces, which are secrets, and digests of what replaced them.

    :param file: it need not exist.
    :raises SettingsError: if it is no such file, or another Airbyte's.
    """

    def __init__(self, file: Path, airbyte_url: str) -> None:
        self.file = file
        self._airbyte = airbyte_url
        self._workspaces: dict[str, dict[str, dict[str, Any]]] = {}
        try:
            content = json_values.parse_object(file.read_bytes())
            self._workspaces = {
                id_: {kind: {"before": each["before"], "ours": str(each["ours"])} for kind, each in kinds.items()}
                for id_, kinds in content["workspaces"].items()
            }
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
            raise SettingsError(f"{file} was not written by webhooks install: name another file with --keep") from exc
        if content.get("airbyte") != airbyte_url:
            raise SettingsError(
                f"{file} keeps the URLs of another Airbyte, {content.get('airbyte')}: name another file with --keep"
            )

    @property
    def digests(self) -> frozenset[str]:
        """The digests of the URLs that install set."""
        return frozenset(each["ours"] for kinds in self._workspaces.values() for each in kinds.values())

    @property
    def forward_file(self) -> Path:
        """The file beside it with the previous URLs, in the form of the setting ``forward_urls``."""
        return self.file.with_name(f"{self.file.stem}.forward-urls")

    def before(self, workspace_id: str, kind: str) -> Webhook | None:
        saved = self._workspaces.get(workspace_id, {}).get(kind)
        return None if saved is None else Webhook.of(saved["before"])

    def add(self, changes: Iterable[Change], receiver: ReceiverURLs) -> None:
        """Remember the webhooks that these changes replace, except those that were the listener's already."""
        for change in changes:
            kinds = self._workspaces.setdefault(change.workspace.id, {})
            before = kinds[change.kind]["before"] if change.kind in kinds else Webhook(enabled=False).data()
            if not receiver.includes(change.before.url):
                before = change.before.data()
            kinds[change.kind] = {"before": before, "ours": digest(change.after.url or "")}

    def forget(self, changes: Iterable[Change]) -> None:
        for change in changes:
            kinds = self._workspaces.get(change.workspace.id, {})
            kinds.pop(change.kind, None)
            if not kinds:
                self._workspaces.pop(change.workspace.id, None)

    def forward_urls(self) -> list[str]:
        """Return the previous URLs as entries of ``forward_urls``."""
        found = dict.fromkeys(
            f"{kind}={url.replace(',', '%2C')}"
            for kinds in self._workspaces.values()
            for kind, each in kinds.items()
            if (url := Webhook.of(each["before"]).live) is not None
        )
        return list(found)

    def save(self) -> None:
        """Write the files.

        :raises SettingsError: if they can't be written.
        """
        content = {"airbyte": self._airbyte, "workspaces": self._workspaces}
        _write(self.file, json.dumps(content, indent=1) + "\n")
        if forwards := self.forward_urls():
            _write(self.forward_file, "".join(f"{entry}\n" for entry in forwards))


def _write(file: Path, text: str) -> None:
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(file, text)
    except OSError as exc:
        raise SettingsError(f"--keep: {file} can't be written ({exc.strerror})") from exc


def plan_uninstall(workspaces: Iterable[Workspace], receiver: ReceiverURLs, backup: Backup) -> Iterator[Change]:
    """Return the changes that restore the previous webhooks, wherever Airbyte still has the listener's."""
    for workspace in workspaces:
        for kind in KINDS:
            if receiver.includes(workspace.webhooks[kind].url):
                before = backup.before(workspace.id, kind) or Webhook(enabled=False)
                yield Change(workspace=workspace, kind=kind, after=before)
