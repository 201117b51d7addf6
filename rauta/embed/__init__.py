"""rauta within another program: the native data plane on its loop, and the same table as an ASGI application."""
