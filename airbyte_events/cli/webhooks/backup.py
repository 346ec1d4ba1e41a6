"""What stood in Airbyte before the listener's URLs did, kept in a file to be restored from."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from platformdirs import user_data_path

from airbyte_events._utils import json_values
from airbyte_events.cli.webhooks.workspaces import KINDS, Change, Ours, Webhook, Workspace, digest
from airbyte_events.errors import SettingsError


def usual_file(instance: str) -> Path:
    """Where it is unless it is said otherwise."""
    return user_data_path("airbyte-events", appauthor=False) / f"webhooks-{instance}.json"


class Kept:
    """The file that holds what stood in Airbyte before, to be restored from. It holds secrets.

    :param file: it need not be there.
    :raises SettingsError: if it is none of ours, or of another Airbyte.
    """

    def __init__(self, file: Path, airbyte_url: str) -> None:
        self.file = file
        self._airbyte = airbyte_url
        self._workspaces: dict[str, dict[str, dict[str, Any]]] = {}
        try:
            kept = json_values.parse_object(file.read_bytes())
            self._workspaces = {
                id_: {kind: {"before": each["before"], "ours": str(each["ours"])} for kind, each in kinds.items()}
                for id_, kinds in kept["workspaces"].items()
            }
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
            raise SettingsError(f"--keep: {file} holds nothing that webhooks install kept") from exc
        if kept.get("airbyte") != airbyte_url:
            raise SettingsError(f"--keep: {file} is of another Airbyte, {kept.get('airbyte')}: name another file")

    @property
    def digests(self) -> frozenset[str]:
        """Of the URLs that we set."""
        return frozenset(each["ours"] for kinds in self._workspaces.values() for each in kinds.values())

    @property
    def forward_file(self) -> Path:
        """The file beside it with what stood there, as the setting ``forward_urls`` takes it."""
        return self.file.with_name(f"{self.file.stem}.forward-urls")

    def before(self, workspace_id: str, kind: str) -> Webhook | None:
        """What stood there, if it was kept."""
        kept = self._workspaces.get(workspace_id, {}).get(kind)
        return None if kept is None else Webhook.of(kept["before"])

    def add(self, changes: Iterable[Change], ours: Ours) -> None:
        """Keep what stands there before these changes; what was ours already is not what stood there."""
        for change in changes:
            kinds = self._workspaces.setdefault(change.workspace.id, {})
            before = kinds[change.kind]["before"] if change.kind in kinds else Webhook(enabled=False).data()
            if not ours.has(change.before.url):
                before = change.before.data()
            kinds[change.kind] = {"before": before, "ours": digest(change.after.url or "")}

    def forget(self, changes: Iterable[Change]) -> None:
        """These stand there again."""
        for change in changes:
            kinds = self._workspaces.get(change.workspace.id, {})
            kinds.pop(change.kind, None)
            if not kinds:
                self._workspaces.pop(change.workspace.id, None)

    def forwards(self) -> list[str]:
        """What stood there, as entries of ``forward_urls``."""
        found = dict.fromkeys(
            f"{kind}={webhook.url.replace(',', '%2C')}"
            for kinds in self._workspaces.values()
            for kind, each in kinds.items()
            if (webhook := Webhook.of(each["before"])).live and webhook.url
        )
        return list(found)

    def write(self) -> None:
        """:raises SettingsError: if it can't be written."""
        content = {"airbyte": self._airbyte, "workspaces": self._workspaces}
        _write(self.file, json.dumps(content, indent=1) + "\n")
        if forwards := self.forwards():
            _write(self.forward_file, "".join(f"{entry}\n" for entry in forwards))


def _write(file: Path, text: str) -> None:
    """Durably, for its owner alone, and as a whole."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")  # readable by its owner alone
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(descriptor)
        Path(name).replace(file)
    except OSError as exc:
        raise SettingsError(f"--keep: {file} can't be written ({exc.strerror})") from exc


def plan_uninstall(workspaces: Iterable[Workspace], ours: Ours, kept: Kept) -> Iterator[Change]:
    """What has to change for what stood there to stand there again, wherever it is still ours that does."""
    for workspace in workspaces:
        for kind in KINDS:
            if ours.has(workspace.webhooks[kind].url):
                before = kept.before(workspace.id, kind) or Webhook(enabled=False)
                yield Change(workspace=workspace, kind=kind, after=before)
