"""What can go wrong with an embedded gateway, beyond its configuration."""

from __future__ import annotations

from rauta.routing.errors import RautaError


class GatewayError(RautaError):
    """A gateway cannot be embedded in this way. The text says what was seen and what to do."""
