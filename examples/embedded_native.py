"""rauta within a program: its listeners on this event loop, or in processes, and another table while it serves.

python examples/embedded_native.py examples/rauta.yaml [PROCESSES]
"""

from __future__ import annotations

import asyncio
import sys

from rauta.api import Gateway, RautaError


async def main(path: str, workers: int) -> None:
    """Serve the file, and look at it again whenever somebody presses Enter; `q` ends it."""
    async with Gateway(path, workers=workers) as gateway:
        while True:
            line = await asyncio.to_thread(sys.stdin.readline)
            if line.strip() == "q" or not line:
                break
            try:
                await gateway.apply(path)  # no request is lost
            except RautaError as error:  # what is wrong with the file; the table before goes on
                print(error, file=sys.stderr)
            stats = gateway.stats()
            print(f"{stats.connections} connections, {stats.in_flight} requests in flight")
            for found in stats.requests:
                print(f"{found.count:8} {found.status} {found.route}")


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3) or not all(count.isdigit() for count in sys.argv[2:]):
        print(
            "usage: python examples/embedded_native.py FILE [PROCESSES], such as examples/rauta.yaml", file=sys.stderr
        )
        sys.exit(2)
    try:
        asyncio.run(main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 0))
    except RautaError as error:  # file, line and key, or what could not be bound
        print(error, file=sys.stderr)
        sys.exit(2)
