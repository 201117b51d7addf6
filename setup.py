"""What setup.cfg cannot say: with RAUTA_COMPILE=1 in the environment the modules that see every request are compiled
to C by mypyc. Without it, as by default, they are plain Python; both run the same sources (docs/compiled.md)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from setuptools import setup

if TYPE_CHECKING:
    from setuptools import Extension

# What a request meets on its way, and what expires by the same wheel (interpreted classes cannot extend compiled ones).
# Not here: what mypyc cannot compile as it stands (named tuples over types that are imported for annotations alone),
# and what runs once per connection or configuration.
COMPILED = {
    "rauta/proxy": (
        "arrivals clock counters dispatch exchange farewell filters flow forwarded generation limits messages metrics "
        "passthrough plan pool redirects shared wheel"
    ),
    "rauta/proxy/http1": "chunked client fields grammar handover serialise server",
    "rauta/proxy/http2": "client h2_compression heads server streams upgrades",
    # Classes that inherit from compiled ones have to be, too.
    "rauta/proxy/asgi": "conversing heads running server sockets",
    "rauta/routing": "balancers candidate conditions hashing index paths request table units",
}

wanted = os.environ.get("RAUTA_COMPILE") == "1"


def extensions() -> list[Extension]:
    """The compiled modules: one library that holds them all, and a stub for each."""
    from mypyc.build import mypycify

    files = [f"{folder}/{name}.py" for folder, names in COMPILED.items() for name in names.split()]
    config = str(Path(__file__).parent / "pyproject.toml")
    return mypycify(["--config-file", config, *files], opt_level="3", debug_level="1", group_name="rauta")


setup(
    ext_modules=extensions() if wanted else [],
    # With build isolation, pip installs these for the build.
    setup_requires=["mypy[mypyc] >= 1.13"] if wanted else [],
)
