"""`python -m rauta.proxy`: the gateway. A shim; the processes are in `rauta.runtime`."""

from __future__ import annotations

import sys

from rauta.runtime.cli import main

if __name__ == "__main__":
    sys.exit(main())
