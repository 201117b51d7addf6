"""rauta as an ASGI application: the table of rauta.yaml, behind a host's listeners.

    hypercorn examples.embedded:app
    uvicorn examples.embedded:app

The same backends as for `python -m rauta.proxy --config examples/rauta.yaml`: without them, their routes answer 502.
"""

from __future__ import annotations

from pathlib import Path

from rauta.api import Gateway

app = Gateway(Path(__file__).with_name("rauta.yaml"))
