"""A bare endpoint on the listener's own HTTP server: it reads the body and answers 202::

python bare.py PORT
"""

from __future__ import annotations

import logging
import signal
import sys

import anyio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from airbyte_events.web.server import serving


async def take(request: Request) -> Response:
    await request.body()
    return JSONResponse({"event": 1}, status_code=202)


async def main() -> None:
    # As the listener does: uvicorn warns of each offer to upgrade.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    app = Starlette(routes=[Route("/webhooks/{instance}/{token}", take, methods=["POST"])])
    with anyio.open_signal_receiver(signal.SIGTERM) as signals:
        async with serving(app, port=int(sys.argv[1])):
            async for _ in signals:
                return


if __name__ == "__main__":
    anyio.run(main)
