"""Tier 3, the data plane: listeners, HTTP/1.1, the exchange, connections to backends. See `exchange` first."""
