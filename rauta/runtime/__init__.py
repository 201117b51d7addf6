"""The processes of the gateway: a supervisor that owns the sockets, and workers that serve them."""
