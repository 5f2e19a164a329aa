"""On the PYTHONPATH of a Ray under test: its processes inject faults into their training.

Python imports this before anything else; what is patched is imported much later, in some of them.
"""

import importlib.util
import os
import sys
from importlib.abc import MetaPathFinder

PATCHED = "orchestration.distributed.process_group"


class Patching(MetaPathFinder):
    """Runs `faults.install` right after the module that it patches."""

    def find_spec(self, name, path=None, target=None):  # type: ignore[no-untyped-def]  # noqa: ARG002
        if name != PATCHED:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        run = spec.loader.exec_module

        def run_and_patch(module):  # type: ignore[no-untyped-def]
            run(module)
            from tests.support.faults import install

            install(module)

        spec.loader.exec_module = run_and_patch
        return spec


if os.environ.get("FAULTS"):
    sys.meta_path.insert(0, Patching())
