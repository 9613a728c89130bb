"""Two sensors of a smartwatch, seven exercises: sharded over the processes, and resumable."""

import os
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.utils.data import DataLoader, DistributedSampler

from equimodal import data
from equimodal.nn import CNN1d


class Watch(nn.Module):
    """An encoder per sensor, and a linear head on the concatenated features."""

    def __init__(self) -> None:
        super().__init__()
        sensors = ("accelerometer", "gyroscope")
        self.encoders = nn.ModuleDict({name: CNN1d(3, 32, norm="none") for name in sensors})
        self.head = nn.Linear(64, 7)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return logits of shape (B, 7) for one input of shape (B, 3, 100) per sensor."""
        encoders = self.encoders.values()
        features = [encoder(x) for encoder, x in zip(encoders, inputs, strict=True)]
        logits: Tensor = self.head(torch.cat(features, dim=1))
        return logits


class Training:
    """What a checkpoint holds; torch.distributed.checkpoint calls its two methods."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self.model, self.optimizer, self.epoch = model, optimizer, 0

    def state_dict(self) -> dict[str, Any]:
        """Return slices of parameters and of the optimizer's state, and the epochs done."""
        model, optimizer = get_state_dict(self.model, self.optimizer)
        return {"model": model, "optimizer": optimizer, "epoch": self.epoch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        set_state_dict(
            self.model,
            self.optimizer,
            model_state_dict=state["model"],
            optim_state_dict=state["optimizer"],
        )
        self.epoch = state["epoch"]


torch.set_num_threads(1)
torch.manual_seed(0)
dist.init_process_group("gloo")
mesh = init_device_mesh("cpu", (dist.get_world_size(),))
splits = data.load("watch")
model = Watch()
encoders = dict(model.encoders.items())
for part in (*encoders.values(), model.head, model):
    fully_shard(part, mesh=mesh)
optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
training = Training(model, optimizer)
saved: dict[str, Any] = {"training": training}
folder = Path(os.environ.get("CHECKPOINTS", "checkpoints"))
if done := sorted(folder.glob("*/.metadata")):
    dcp.load(saved, checkpoint_id=done[-1].parent)  # type: ignore[attr-defined]
sampler = DistributedSampler(splits.train, seed=0)  # type: ignore[var-annotated]
loader = DataLoader(splits.train, 32, sampler=sampler, collate_fn=splits.train.collate)
for epoch in range(training.epoch, int(os.environ.get("EPOCHS", "3"))):
    sampler.set_epoch(epoch)
    for *inputs, target in loader:
        nn.functional.cross_entropy(model(*inputs), target).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    training.epoch = epoch + 1
    dcp.save(saved, checkpoint_id=folder / f"{epoch}")  # type: ignore[attr-defined]

model.eval()
*inputs, target = next(iter(splits.val.loader(batch_size=len(splits.val))))
with torch.no_grad():
    accuracy = (model(*inputs).argmax(1) == target).float().mean()
if dist.get_rank() == 0:
    print(f"{training.epoch} epochs, validation accuracy {accuracy:.4f}")
dist.destroy_process_group()
