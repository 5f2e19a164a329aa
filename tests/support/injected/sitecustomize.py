"""Fault injection for the processes of a Ray cluster under test, by the PYTHONPATH.

Python imports this file first; the module to patch is imported later, in some of the processes.
"""

import importlib.util
import os
import sys
from importlib.abc import MetaPathFinder

PATCHED = "orchestration.distributed.process_group"


class Patching(MetaPathFinder):
    """Calls `faults.install` right after the patched module is imported."""

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
