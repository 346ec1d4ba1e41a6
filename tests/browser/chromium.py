"""The browser: Chromium, found where Debian and others put it, or named by ``CHROMIUM``."""

from __future__ import annotations

import os
import shutil

from playwright.sync_api import Browser, Playwright

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")


def launch(playwright: Playwright) -> Browser:
    """:raises RuntimeError: if there is none."""
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if not found:
        raise RuntimeError("no Chromium here: install it (Debian: chromium-headless-shell), or name it: CHROMIUM=…")
    # Its sandbox wants more rights than containers have; the only pages that it opens are ours.
    return playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
