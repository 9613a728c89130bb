"""Two sensors of a smartwatch, seven exercises, by one process or several."""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
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


torch.set_num_threads(1)
torch.manual_seed(0)
dist.init_process_group("gloo")
splits = data.load("watch")
net = Watch()
model = DistributedDataParallel(net)
optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
sampler = DistributedSampler(splits.train, seed=0)  # type: ignore[var-annotated]
loader = DataLoader(splits.train, 32, sampler=sampler, collate_fn=splits.train.collate)
for epoch in range(3):
    sampler.set_epoch(epoch)
    for *inputs, target in loader:
        F.cross_entropy(model(*inputs), target).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

net.eval()
*inputs, target = next(iter(splits.val.loader(batch_size=len(splits.val))))
with torch.no_grad():
    logits = net(*inputs)
    accuracy = (logits.argmax(1) == target).float().mean()
    loss = F.cross_entropy(logits, target)
if dist.get_rank() == 0:
    print(f"validation accuracy {accuracy:.3f}, loss {loss:.3f}")
dist.destroy_process_group()
