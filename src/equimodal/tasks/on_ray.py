"""Tasks on a Ray cluster that others have started."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

from typing_extensions import Self

from equimodal.errors import SetupError
from equimodal.system.extras import require
from equimodal.tasks.engine import Ended
from equimodal.tasks.reachable import refuse_silence
from equimodal.tasks.task import Task, perform

TOKEN = (
    "Ray makes an access token by itself since 2.60 and refuses who does not have it: set "
    "RAY_AUTH_MODE=token here and on every node, with the same token in ~/.ray/auth_token (or in "
    "the file that RAY_AUTH_TOKEN_PATH names)"
)

# Ray tries for 20 s where a token is wrong, and logs each try.
TERSE = {"RAY_gcs_server_port_wait_time_s": "3", "RAY_BACKEND_LOG_LEVEL": "fatal"}


class OnRay:
    """Runs tasks on the nodes of a Ray cluster, which share the folders of the tasks.

    The cluster is joined; it is neither started nor stopped.

    Args:
        address: of its head, as ``10.0.0.1:6379``; "auto" for the one that runs here.
        cpus: cores for each task.
        gpus: for each task; 0.5 lets two share one.

    Raises:
        SetupError: no cluster is there, or none of its nodes has that much.
        ImportError: Ray is missing.
    """

    def __init__(self, address: str = "auto", cpus: float = 1, gpus: float = 0) -> None:
        require("ray", "ray")
        if address != "auto":
            refuse_silence(address)  # for which Ray takes minutes
        self.ray: Any = import_module("ray")
        path = os.environ.get("PYTHONPATH")
        environment = {} if path is None else {"env_vars": {"PYTHONPATH": path}}
        try:
            with _set(TERSE):
                self.ray.init(
                    address=address,
                    logging_level="ERROR",
                    log_to_driver=False,
                    runtime_env=environment,
                    ignore_reinit_error=True,
                )
        except (ConnectionError, RuntimeError, ValueError) as error:
            first = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
            raise SetupError(
                f"--address {address}: no Ray cluster could be joined there ({first}). One is not "
                f"started for you: `ray start --head` does. {TOKEN}"
            ) from error
        try:
            _refuse_more_than_any_node_has(self.ray.nodes(), cpus, gpus)
        except SetupError:
            self.ray.shutdown()
            raise
        # Tasks are begun again by whoever carries them out, as on other engines.
        self.remote = self.ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=0, max_calls=1)(
            perform
        )
        self.tasks: dict[Any, Task] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for reference in self.tasks:
            self.ray.cancel(reference, force=True)
        self.tasks.clear()
        self.ray.shutdown()  # leaves the cluster, which goes on

    def submit(self, task: Task) -> None:
        self.tasks[self.remote.options(name=task.name).remote(task)] = task

    def running(self) -> list[Task]:
        return list(self.tasks.values())

    def ended(self, timeout: float) -> list[Ended]:
        references = list(self.tasks)
        if self.ray.wait(references, num_returns=1, timeout=timeout)[0]:
            ready, _ = self.ray.wait(references, num_returns=len(references), timeout=0)
        else:
            ready = []
        found = []
        for reference in ready:
            task = self.tasks.pop(reference)
            try:
                found.append(Ended(task, self.ray.get(reference)))
            except self.ray.exceptions.RayError as error:
                lost = isinstance(error, self.ray.exceptions.NodeDiedError)
                first = str(error).strip().splitlines()[0]
                how = f"ended: {type(error).__name__}: {first}"
                found.append(Ended(task, None, how, machine=lost))
        return found


@contextlib.contextmanager
def _set(variables: Mapping[str, str]) -> Iterator[None]:
    """Set variables of the environment for a while, but those that are set."""
    added = {name: value for name, value in variables.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def _refuse_more_than_any_node_has(nodes: Any, cpus: float, gpus: float) -> None:
    """Refuse what Ray would wait for without end."""
    offers = [node["Resources"] for node in nodes if node["Alive"]]
    if not any(o.get("CPU", 0) >= cpus and o.get("GPU", 0) >= gpus for o in offers):
        found = "; ".join(f"{o.get('CPU', 0):g} CPU, {o.get('GPU', 0):g} GPU" for o in offers)
        raise SetupError(
            f"no node of the Ray cluster has {cpus:g} CPU and {gpus:g} GPU for a task: found "
            f"{found or 'no living node'}"
        )
