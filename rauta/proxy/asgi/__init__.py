"""ASGI 3, both ways: requests that a host hands over, and applications that run in the worker's own loop."""
