"""On the smartwatch data the gyroscope is found to contribute less."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from equimodal import data
from equimodal.diagnostics.contributions.shapley import shapley_of
from equimodal.diagnostics.contributions.subsets import subsets
from equimodal.diagnostics.outputs.agreement import agreement_of
from equimodal.diagnostics.outputs.chance import chance
from equimodal.diagnostics.outputs.predictions import predictions
from equimodal.diagnostics.subject import Subject
from equimodal.training.models import model_for


def test_gyroscope_contributes_less() -> None:
    splits = data.load("watch")
    model = model_for(splits)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    for _ in range(3):
        for *inputs, target in splits.train.loader(64, shuffle=True):
            F.cross_entropy(model(*inputs), target).backward()
            optimizer.step()
            optimizer.zero_grad()
    with Subject(model, dict(model.encoders.items()), model.head) as subject:
        loader = splits.test.loader(256)
        found = subsets(subject, loader)
        read = predictions(subject, loader)
    values = shapley_of(found)
    for fill in ("zero", "mean", "shuffled"):
        assert values.versus(fill, "accelerometer", "gyroscope").low > 0.1
        assert found.versus(fill, ["accelerometer"], ["gyroscope"]).low > 0.1
    against = {n: chance(of.labels, read.target, read.classes) for n, of in read.alone.items()}
    assert against["accelerometer"].better
    assert against["accelerometer"].accuracy.low > against["gyroscope"].accuracy.high
    table = agreement_of(
        {name: of.labels for name, of in read.alone.items()}, read.target, classes=splits.classes
    )
    assert table.only["accelerometer"].low > table.only["gyroscope"].high
