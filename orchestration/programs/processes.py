"""Processes that run compilers and runtimes. One may crash without the others; it is restarted."""

from __future__ import annotations

from typing import Any

from cluster.hardware import Target
from cluster.runtimes.base import MeasurementError, ProgramError


def process(kind: type, name: str, node: str) -> Any:
    """Actor of that name on a node, started if there is none or if it is dead."""
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
            # It may use GPUs without reserving them, while the workers that hold them wait.
            runtime_env={"env_vars": {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}},
        )
        .remote()
    )


def answer_of(answer: Any, target: Target) -> Any:
    """Wait for the answer of a process.

    Raises:
        ProgramError: the runtime failed on the program, or crashed its process twice.
        MeasurementError: the process raised it, or cannot be reached.
    """
    import ray
    from ray.exceptions import ActorDiedError, ActorUnavailableError, RayError, RayTaskError

    try:
        return ray.get(answer)
    except (ActorDiedError, ActorUnavailableError) as error:
        raise ProgramError(f"{target.runtime} took its process with it") from error
    except RayTaskError as error:
        raise _original_error(getattr(error, "cause", error), target) from error
    except RayError as error:
        raise MeasurementError(f"{target.runtime}: {first_line(error)}") from error


def _original_error(cause: BaseException, target: Target) -> MeasurementError:
    """Error with the original message of a process, without Ray's traceback."""
    for kind in (ProgramError, MeasurementError):
        if isinstance(cause, kind):
            return kind(str(cause))
    return ProgramError(f"{target.runtime}: {type(cause).__name__}: {first_line(cause)}")


def first_line(error: BaseException) -> str:
    """First line of an error message; compilers add many more."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
