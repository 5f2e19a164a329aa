"""Entry point: `python -m orchestration JOB.yaml` and the console script `proxyless`."""

from __future__ import annotations

import sys

from orchestration.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
