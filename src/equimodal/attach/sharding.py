"""Parameters of which each rank holds a slice: FSDP2 (`fully_shard`) and tensor parallelism.

A sharded parameter, its gradient and its state in the optimizer are DTensors, each of the same
slice. The balancer works on the slices, and asks the other ranks only for what a slice does not
tell: norms, standard deviations, whether all of a gradient is finite.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from equimodal.attach.chain import Chain
from equimodal.errors import SetupError
from equimodal.system import ranks


def is_sharded(tensor: Tensor) -> bool:
    """Whether a tensor is a DTensor."""
    # Importing them takes longer than all of equimodal; where nobody has, there is none.
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


def local(tensor: Any) -> Tensor:
    """Return what this rank holds of a tensor, without a copy: all of it if it is not sharded."""
    held: Tensor = tensor.detach().to_local() if is_sharded(tensor) else tensor
    return held


def units(model: nn.Module) -> dict[str, Any]:
    """Return the modules that `fully_shard` was applied to, by their names in the model.

    Raises:
        SetupError: the model is wrapped in the first version of FSDP.
    """
    fsdp = sys.modules.get("torch.distributed.fsdp")
    if fsdp is None:
        return {}
    for module in model.modules():
        if isinstance(module, fsdp.FullyShardedDataParallel):
            raise SetupError(
                "the model is wrapped in FullyShardedDataParallel, which flattens the parameters "
                "of several layers into one: apply torch.distributed.fsdp.fully_shard instead"
            )
    return {name: m for name, m in model.named_modules() if isinstance(m, fsdp.FSDPModule)}


class Sharding:
    """How a model is sharded.

    Args:
        model: a model to which `fully_shard` or `parallelize_module` has been applied.
        head: its fusion head, or None.

    Raises:
        SetupError: it is sharded in a way that is not supported; the message says which.
    """

    def __init__(self, model: nn.Module, head: nn.Module | None) -> None:
        found = units(model)
        for unit in found.values():
            unit.reshard()  # after a forward without a backward it holds its whole parameters
        self.mesh: Any = None
        self._cut: list[int] = []
        for name, parameter in model.named_parameters():
            if is_sharded(parameter):
                self._learn(name, parameter)
        self.head = head
        parts = head.parts if isinstance(head, Chain) else [] if head is None else [head]
        self._head_units = list(
            dict.fromkeys(unit for part in parts for unit in _holding(part, model, found))
        )

    def _learn(self, name: str, parameter: Any) -> None:
        cut = [dim for dim, placed in enumerate(parameter.placements) if not placed.is_replicate()]
        if len(cut) > 1 or any(not parameter.placements[dim].is_shard() for dim in cut):
            raise SetupError(
                f"{name} is placed as {parameter.placements}: expected parameters that are cut "
                "along one dimension of the mesh (fully_shard on a mesh of one dimension, or of "
                "two for hybrid sharding), not tensor parallelism beside it"
            )
        if not cut and self._cut and parameter.device_mesh == self.mesh:
            return  # whole on every rank, as biases beside RowwiseParallel weights
        if self._cut and (parameter.device_mesh, cut) != (self.mesh, self._cut):
            raise SetupError(
                f"{name} is sharded over {parameter.device_mesh}, but other parameters over "
                f"{self.mesh}: apply fully_shard with one mesh to all of the model"
            )
        self.mesh, self._cut = parameter.device_mesh, cut

    @property
    def dim(self) -> int | None:
        """The dimension of the mesh along which parameters are cut, None if they are not."""
        return self._cut[0] if self._cut else None

    @property
    def group(self) -> dist.ProcessGroup | None:
        """The ranks that hold the slices of one parameter together."""
        assert self.dim is not None
        group: dist.ProcessGroup = self.mesh.get_group(self.dim)
        return group

    def data_parallel_group(self) -> dist.ProcessGroup | None:
        """Return the ranks that share a batch: all of the mesh, None for torch's default group.

        Raises:
            SetupError: the mesh has two dimensions and does not hold all ranks.
        """
        if self.mesh.size() == ranks.world_size():
            return None
        if self.mesh.ndim > 1:
            raise SetupError(
                f"the mesh {self.mesh} holds {self.mesh.size()} of {ranks.world_size()} ranks: "
                "pass the group of its ranks, eq.Balancer(..., process_group=group)"
            )
        group: dist.ProcessGroup = self.mesh.get_group()
        return group

    def is_slice(self, tensor: Any) -> bool:
        """Whether this rank holds only a part of a tensor."""
        return self.dim is not None and is_sharded(tensor)

    def start(self, name: str, parameter: Any) -> int:
        """Return the place of the slice's first element in the flattened parameter.

        Raises:
            SetupError: the slice is not a contiguous range of it.
        """
        assert self.dim is not None
        placed = parameter.placements[self.dim]
        if placed.dim != 0:
            raise SetupError(
                f"{name} is sharded along dimension {placed.dim}, and noise is drawn by place in "
                "the flattened parameter, of which only a slice along dimension 0 is a contiguous "
                "range: leave shard_placement_fn out (ColwiseParallel slices so, RowwiseParallel "
                "does not), or use a method without noise, such as eq.OGM"
            )
        length, parts = parameter.shape[0], self.mesh.size(self.dim)
        rows = -(-length // parts)  # as torch.chunk cuts: the last slices may be shorter, or empty
        first = min(rows * self.mesh.get_local_rank(self.dim), length)
        held = local(parameter).shape[0]
        if held != min(rows, length - first):
            raise SetupError(
                f"{name} has {length} rows over {parts} ranks: expected "
                f"{min(rows, length - first)} of them on this one, found {held}"
            )
        return int(first * (parameter.numel() // max(length, 1)))

    def gather(self, tensor: Tensor) -> Tensor:
        """Stack the tensors of all ranks that hold slices of the same parameters."""
        return ranks.gather(tensor, self.group)

    def norms(self, of: Sequence[Sequence[tuple[Tensor, Tensor]]]) -> Tensor:
        """Return Euclidean norms, shape ``(N,)``, in one collective.

        Args:
            of: for each norm pairs of a parameter, and what this rank has of the tensor like it
                that counts.
        """
        squares = torch.stack([self._squares(pairs) for pairs in of])
        if self.dim is not None:
            squares[:, 0] = self.gather(squares[:, 0]).sum(dim=0)
        return squares.sum(dim=1).sqrt()

    def _squares(self, pairs: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
        """Return the squared norms of what is sliced and of what is not, shape ``(2,)``."""
        squares = torch.zeros(2, dtype=torch.float32, device=self.mesh.device_type)
        for index, sliced in enumerate((True, False)):
            tensors = [held for of, held in pairs if self.is_slice(of) == sliced]
            if tensors:
                squares = squares.to(torch.promote_types(squares.dtype, tensors[0].dtype))
                norms = torch.stack(torch._foreach_norm(tensors))
                squares[index] = torch.linalg.vector_norm(norms).square()
        return squares

    def gather_head(self) -> bool:
        """Let the head hold its whole parameters, as after a forward that has freed them.

        Returns:
            Whether it did not before.
        """
        gather = self.head is not None and any(is_sharded(p) for p in self.head.parameters())
        for unit in self._head_units if gather else []:
            unit.unshard()
        return gather

    @contextlib.contextmanager
    def whole_head(self, keep: bool) -> Iterator[None]:
        """Let the head hold its whole parameters, within a `with` block.

        Args:
            keep: leave them so: the backward pass that follows needs them first, and frees them.
        """
        gather = self.gather_head()
        try:
            yield
        finally:
            if gather and not keep:
                for unit in self._head_units:
                    unit.reshard()


def find_sharding(model: nn.Module, head: nn.Module | None) -> Sharding | None:
    """Return how a model is sharded, or None if it is not.

    Raises:
        SetupError: it is sharded in a way that is not supported.
    """
    sliced = any(is_sharded(parameter) for parameter in model.parameters())
    return Sharding(model, head) if sliced or units(model) else None


def placed_like(parameter: Any, tensor: Any) -> Tensor:
    """Return a tensor sharded as a parameter is, if it is one with its shape; or not sharded.

    Args:
        parameter: of the model.
        tensor: of any shape, sharded in any way or not at all, the same on every rank.
    """
    from torch.distributed.tensor import distribute_tensor

    if not is_sharded(parameter) or tensor.shape != parameter.shape:
        return tensor.full_tensor() if is_sharded(tensor) else tensor  # type: ignore[no-any-return]
    mesh, placements = parameter.device_mesh, parameter.placements
    if is_sharded(tensor):
        return tensor.redistribute(mesh, placements)  # type: ignore[no-any-return]
    return distribute_tensor(tensor.to(parameter.device), mesh, placements, src_data_rank=None)


def refuse_copy(sharding: Sharding | None) -> None:
    """Refuse to copy a sharded model.

    Raises:
        SetupError: it is one.
    """
    if sharding is not None:
        raise SetupError(
            "a sharded model cannot be copied: gather its parameters with "
            "torch.distributed.checkpoint.state_dict.get_model_state_dict(model, "
            "options=StateDictOptions(full_state_dict=True)), and load them into a model that is "
            "not sharded"
        )


def _holding(part: nn.Module, model: nn.Module, found: dict[str, Any]) -> Iterator[Any]:
    """Yield the units that hold the parameters of a part of the model."""
    inside = set(part.modules())
    (name,) = (name for name, module in model.named_modules() if module is part)
    around = [n for n in found if n == "" or name == n or name.startswith(f"{n}.")]
    if around:
        yield found[max(around, key=len)]
    for unit in found.values():
        if unit in inside and unit is not part:
            yield unit
