"""Two sensors of a smartwatch, seven exercises, by Accelerate."""

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn

import equimodal as eq
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
splits = data.load("watch")
model = Watch()
optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
balancer = eq.Balancer(eq.OGMGE(0.8), model, dict(model.encoders), model.head, optimizer)
accelerator = Accelerator(gradient_accumulation_steps=4, cpu=True)
model, optimizer, loader = accelerator.prepare(
    model, optimizer, splits.train.loader(batch_size=16, shuffle=True)
)
for _ in range(3):
    for *inputs, target in loader:
        with accelerator.accumulate(model):
            balancer.backward(balancer.loss(model(*inputs), target), using=accelerator.backward)
            if accelerator.sync_gradients:
                balancer.modulate(accelerator.scaler)
                accelerator.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
    balancer.end_epoch()

model.eval()
*inputs, target = next(iter(splits.val.loader(batch_size=len(splits.val))))
with torch.no_grad():
    logits = model(*inputs)
    accuracy = (logits.argmax(1) == target).float().mean()
    loss = F.cross_entropy(logits, target)
accelerator.print(f"validation accuracy {accuracy:.3f}, loss {loss:.3f}")
