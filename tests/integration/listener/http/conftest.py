"""What the tests of the listener's routes share."""

from __future__ import annotations

from support.loops import anyio_backend as anyio_backend
