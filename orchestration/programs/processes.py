"""Processes that runtimes live in: one may die without the others, and is started again."""

from __future__ import annotations

from typing import Any

from cluster.hardware import Target
from cluster.runtimes.base import MeasurementError, ProgramError


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
    """What a process answers; where it refuses, that in its own words.

    Raises:
        ProgramError: the runtime fails at what it was given, or took its process along, and did so
            again when it was tried once more.
        MeasurementError: the process refuses, or cannot be reached.
    """
    import ray
    from ray.exceptions import ActorDiedError, ActorUnavailableError, RayError, RayTaskError

    try:
        return ray.get(answer)
    except (ActorDiedError, ActorUnavailableError) as error:
        raise ProgramError(f"{target.runtime} took its process with it") from error
    except RayTaskError as error:
        raise _in_its_words(getattr(error, "cause", error), target) from error
    except RayError as error:
        raise MeasurementError(f"{target.runtime}: {first_line(error)}") from error


def _in_its_words(cause: BaseException, target: Target) -> MeasurementError:
    """What a process said, without Ray's words and the traceback around it."""
    for kind in (ProgramError, MeasurementError):
        if isinstance(cause, kind):
            return kind(str(cause))
    return ProgramError(f"{target.runtime}: {type(cause).__name__}: {first_line(cause)}")


def first_line(error: BaseException) -> str:
    """What an error says, without the pages that compilers add."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
