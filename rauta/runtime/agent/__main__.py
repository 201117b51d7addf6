"""`python -m rauta.runtime.agent`: started by the supervisor."""

import sys

from rauta.runtime.agent.main import main

if __name__ == "__main__":
    sys.exit(main())
