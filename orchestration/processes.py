"""Processes that runtimes live in: one may die without the others, and is started again."""

from __future__ import annotations

from typing import Any

from cluster.hardware import Target
from cluster.runtimes import MeasurementError


class RuntimeDiedError(MeasurementError):
    """A runtime took its process with it."""


def process(kind: type, name: str, node: str) -> Any:
    """The process of that name on a node, started if there is none or if it died for good."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return (
        ray.remote(kind)
        .options(
            name=f"{name} on {node}",
            get_if_exists=True,
            num_cpus=0,
            max_restarts=-1,
            max_task_retries=1,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
            # It times on GPUs that it did not reserve: the workers that hold them wait.
            runtime_env={"env_vars": {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}},
        )
        .remote()
    )


def answer_of(answer: Any, target: Target) -> Any:
    """What a process answers; where it refuses, that in its own words."""
    import ray
    from ray.exceptions import ActorDiedError, ActorUnavailableError

    try:
        return ray.get(answer)
    except (ActorDiedError, ActorUnavailableError) as error:
        raise RuntimeDiedError(f"{target.runtime} took its process with it") from error
    except MeasurementError as error:  # in Ray's words, with the traceback of the process
        raise MeasurementError(str(getattr(error, "cause", error))) from None
