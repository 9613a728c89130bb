"""Host models against their equations, written out with loops in double precision."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import equimodal as eq
from equimodal.criterion import Criterion
from equimodal.nn import (
    AVGA,
    MLP,
    MMTM,
    PSP,
    TSN,
    CentralNet,
    CNN1d,
    CNN2d,
    CrossModalTransformer,
    MMTMBlock,
    pair_similarity_loss,
    sample_segments,
    segment_cross_entropy,
)
from equimodal.nn.hosts import CrossModalLayer, GuidedAttention, Propagation

Rows = list[list[float]]


def precise(module: Any, seed: int = 0) -> Any:
    """Return a module in double precision, in evaluation, with biases and scales that matter."""
    torch.manual_seed(seed)
    for parameter in module.double().parameters():
        if parameter.ndim == 1:
            nn.init.normal_(parameter, mean=0.3, std=0.5)
    return module.eval()


def some(*shape: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def affine(x: list[float], layer: Any) -> list[float]:
    bias = [0.0] * layer.out_features if layer.bias is None else layer.bias.tolist()
    rows = zip(layer.weight.tolist(), bias, strict=True)
    return [sum(w * v for w, v in zip(row, x, strict=True)) + b for row, b in rows]


def relu(x: list[float]) -> list[float]:
    return [max(0.0, value) for value in x]


def close(found: Tensor, expected: Any) -> None:
    expected = torch.as_tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(found.detach(), expected, rtol=0, atol=1e-10)


# ---------------------------------------------------------------------- MMTM


@pytest.mark.parametrize(
    "shapes",
    [
        {"audio": (4, 3, 5), "visual": (6, 2, 2)},
        {"audio": (4, 7), "visual": (3, 2, 3, 2), "text": (5,)},
    ],
)
def test_mmtm_block(shapes: dict[str, tuple[int, ...]]) -> None:
    torch.manual_seed(0)
    block = precise(MMTMBlock({name: shape[0] for name, shape in shapes.items()}, ratio=4))
    maps = {name: some(3, *shape, seed=i) for i, (name, shape) in enumerate(shapes.items())}
    found = block(maps)
    for sample in range(3):
        squeezed: list[float] = []
        for x in maps.values():
            for channel in x[sample]:
                values = channel.flatten().tolist()
                squeezed.append(sum(values) / len(values))
        hidden = relu(affine(squeezed, block.squeeze[0]))
        assert len(hidden) == 2 * sum(shape[0] for shape in shapes.values()) // 4
        for name, x in maps.items():
            gate = [1 / (1 + math.exp(-e)) for e in affine(hidden, block.gates[name][0])]
            for channel, g in enumerate(gate):
                close(found[name][sample, channel], x[sample, channel] * g)


def test_mmtm_puts_blocks_after_the_stages_that_are_asked_for() -> None:
    encoders = {"audio": CNN2d(1, 6, width=4, depth=3), "visual": CNN2d(2, 5, width=3, depth=4)}
    model = precise(MMTM(encoders, classes=3, after=(1, 3)))
    inputs = some(2, 1, 16, 16), some(2, 2, 20, 12, seed=2)
    audio, visual = (model.branches[name].stages for name in encoders)
    a, v = audio[0](inputs[0]), visual[0](inputs[1])
    maps = model.blocks["1"]({"audio": a, "visual": v})
    a, v = audio[2](audio[1](maps["audio"])), visual[2](visual[1](maps["visual"]))
    maps = model.blocks["3"]({"audio": a, "visual": v})
    features = {"audio": maps["audio"], "visual": visual[3](maps["visual"])}
    layers = model.head.branches.classifiers
    expected = sum(layers[name](x.mean(dim=(2, 3))) for name, x in features.items()) / 2
    close(model(*inputs), expected)


def test_a_hook_on_a_gate_sees_and_replaces_it() -> None:
    model = precise(MMTM({"audio": CNN2d(1, 4, width=4), "visual": CNN2d(1, 4, width=4)}, 3))
    inputs = some(5, 1, 16, 16), some(5, 1, 16, 16, seed=2)
    seen: list[Tensor] = []
    gate = model.blocks["3"].gates["audio"]
    before = model.encode(*inputs)

    def replace(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        seen.append(output)
        return torch.ones_like(output)

    handle = gate.register_forward_hook(replace)
    opened = model.encode(*inputs)
    handle.remove()
    close(opened["audio"] * seen[0], before["audio"])
    close(opened["visual"], before["visual"])
    assert seen[0].shape == (5, 4)
    assert ((seen[0] > 0) & (seen[0] < 1)).all()


# ---------------------------------------------------------------------- AVGA


def attended_by_hand(attention: GuidedAttention, guide: Tensor, cells: Tensor) -> Tensor:
    out = torch.empty(*guide.shape[:2], cells.shape[-1], dtype=torch.float64)
    (u_a, _, w_a), (u_v, _, w_v) = attention.guide, attention.cells
    for b, t in itertools.product(*map(range, guide.shape[:2])):
        g = affine(relu(affine(guide[b, t].tolist(), u_a)), w_a)
        scores = []
        for cell in cells[b, t].tolist():
            e = affine(relu(affine(cell, u_v)), w_v)
            hidden = [math.tanh(x + y) for x, y in zip(e, g, strict=True)]
            scores.append(affine(hidden, attention.score)[0])
        total = sum(math.exp(score) for score in scores)
        weights = [math.exp(score) / total for score in scores]
        for k in range(cells.shape[-1]):
            column = cells[b, t, :, k].tolist()
            out[b, t, k] = sum(w * c for w, c in zip(weights, column, strict=True))
    return out


def test_guided_attention() -> None:
    attention = precise(GuidedAttention(guide=3, cells=5, hidden=6, scored=4))
    guide, cells = some(2, 3, 3), some(2, 3, 7, 5, seed=2)
    close(attention(guide, cells), attended_by_hand(attention, guide, cells))


def test_attention_does_not_care_where_a_cell_lies() -> None:
    attention = precise(GuidedAttention(guide=3, cells=5, hidden=6, scored=4))
    guide, cells = some(2, 3, 3), some(2, 3, 7, 5, seed=2)
    order = torch.tensor([3, 0, 6, 1, 5, 2, 4])
    close(attention(guide, cells[:, :, order]), attention(guide, cells))


def test_avga() -> None:
    model = precise(AVGA(classes=4, audio=3, visual=5, hidden=2, attention=6))
    audio, visual = some(2, 6, 3), some(2, 6, 2, 3, 5, seed=2)
    attended = attended_by_hand(model.attention, audio, visual.reshape(2, 6, 6, 5))
    features = torch.cat([model.audio(audio)[0], model.visual(attended)[0]], dim=-1)
    first, last = model.head.layers[1], model.head.layers[3]
    expected = [
        [affine(relu(affine(relu(step), first)), last) for step in sample]
        for sample in features.tolist()
    ]
    close(model(audio, visual), expected)
    close(model(audio, visual.flatten(2, 3)), expected)  # cells need no rows and columns


# ---------------------------------------------------------------------- PSP


def normalised(rows: Rows) -> Rows:
    return [[value / (sum(row) + 1e-8) for value in row] for row in rows]


def product(left: Rows, right: Rows) -> Rows:
    return [[sum(a * b for a, b in zip(row, col, strict=True)) for col in zip(*right, strict=True)]
            for row in left]  # fmt: skip


def layer_norm(x: list[float], norm: Any) -> list[float]:
    mean = sum(x) / len(x)
    variance = sum((v - mean) ** 2 for v in x) / len(x)
    pairs = zip(x, norm.weight.tolist(), norm.bias.tolist(), strict=True)
    return [(v - mean) / math.sqrt(variance + 1e-6) * w + b for v, w, b in pairs]


def propagated_by_hand(module: Propagation, audio: Rows, visual: Rows) -> tuple[Rows, Rows, int]:
    a1, a2 = ([relu(affine(x, layer)) for x in audio] for layer in list(module.audio)[:2])
    v1, v2 = ([relu(affine(x, layer)) for x in visual] for layer in list(module.visual)[:2])
    alike = [
        [max(0.0, sum(p * q for p, q in zip(v, a, strict=True)) / math.sqrt(len(v))) for a in a1]
        for v in v2
    ]
    pruned = 0
    gammas = []
    for rows in (alike, [list(column) for column in zip(*alike, strict=True)]):
        beta = normalised(rows)
        kept = [[value if value > module.threshold else 0.0 for value in row] for row in beta]
        pruned += sum(v > 0 for row in beta for v in row) - sum(v > 0 for row in kept for v in row)
        gammas.append(normalised(kept))
    sums = []
    for x, gamma, other, layer in (
        (visual, gammas[0], a2, module.visual[2]),
        (audio, gammas[1], v1, module.audio[2]),
    ):
        added = [
            [p + q for p, q in zip(*rows, strict=True)]
            for rows in zip(x, product(gamma, other), strict=True)
        ]
        sums.append([layer_norm(relu(affine(row, layer)), module.norm) for row in added])
    return sums[1], sums[0], pruned


@pytest.mark.parametrize("threshold", [0.0, 0.099, 0.25])
def test_propagation(threshold: float) -> None:
    torch.manual_seed(3)
    module = precise(Propagation(width=6, threshold=threshold))
    audio, visual = some(3, 5, 6), some(3, 5, 6, seed=2)
    found = module(audio, visual)
    pruned = 0
    for sample in range(3):
        *expected, count = propagated_by_hand(
            module, audio[sample].tolist(), visual[sample].tolist()
        )
        pruned += count
        close(found[0][sample], expected[0])
        close(found[1][sample], expected[1])
    assert (pruned > 0) == (threshold > 0)


def test_propagation_moves_with_its_segments() -> None:
    """All pairs of segments meet, whenever they are: order does not matter."""
    module = precise(Propagation(width=6, threshold=0.15))
    audio, visual = some(3, 5, 6), some(3, 5, 6, seed=2)
    order, other = torch.tensor([3, 0, 4, 1, 2]), torch.tensor([1, 4, 2, 0, 3])
    found = module(audio[:, order], visual[:, other])
    expected = module(audio, visual)
    close(found[0], expected[0][:, order])
    close(found[1], expected[1][:, other])


def test_psp() -> None:
    model = precise(PSP(classes=4, audio=3, visual=5, hidden=4, attention=6, threshold=0.2))
    audio, visual = some(2, 6, 3), some(2, 6, 2, 3, 5, seed=2)
    heard = audio @ model.audio_layers[0].weight.T @ model.audio_layers[1].weight.T
    seen = attended_by_hand(model.attention, heard.detach(), visual.reshape(2, 6, 6, 5))
    seen = seen @ model.visual_layers[0].weight.T @ model.visual_layers[1].weight.T
    a, v = model.audio(heard)[0], model.visual(seen)[0]
    first, _, last = model.head.classifier
    found, similarity = model(audio, visual), model.head.similarity(audio=a, visual=v)
    for sample in range(2):
        heard_, seen_, _ = propagated_by_hand(
            model.head.propagation, a[sample].tolist(), v[sample].tolist()
        )
        for t, (p, q) in enumerate(zip(heard_, seen_, strict=True)):
            fused = [(x + y) / 2 for x, y in zip(p, q, strict=True)]
            close(found[sample, t], affine(relu(affine(fused, first)), last))
            dot = sum(x * y for x, y in zip(p, q, strict=True))
            close(similarity[sample, t], dot / math.hypot(*p) / math.hypot(*q))


def test_pair_similarity_loss() -> None:
    similarity = some(4, 5).tanh()
    event = torch.rand(4, 5, generator=torch.Generator().manual_seed(3)) < 0.5
    event[0] = False  # nothing happens
    expected = 0.0
    for s, e in zip(similarity.tolist(), event.tolist(), strict=True):
        (alike,), (wanted,) = normalised([relu(s)]), normalised([[float(x) for x in e]])
        expected += sum((p - q) ** 2 for p, q in zip(alike, wanted, strict=True)) / 20
    close(pair_similarity_loss(similarity, event), expected)
    close(pair_similarity_loss(similarity, event.float()), expected)


def test_segment_cross_entropy_is_read_per_sample_and_leaves_out_what_is_ignored() -> None:
    logits, target = some(3, 4, 5), torch.arange(12).view(3, 4) % 5
    target[1, 2:] = -100
    expected = [
        [-logits[b, t].log_softmax(0)[y].item() for t, y in enumerate(row) if y >= 0]
        for b, row in enumerate(target.tolist())
    ]
    close(segment_cross_entropy(logits, target), sum(map(sum, expected)) / 10)
    criterion = Criterion(segment_cross_entropy)
    close(criterion.per_sample(logits, target), [sum(row) / len(row) for row in expected])
    both = criterion.each_per_sample([logits, 2 * logits], target)
    close(both[1], criterion.per_sample(2 * logits, target))


# ---------------------------------------------------------------------- CentralNet


@pytest.mark.parametrize("modalities", [2, 3])
def test_centralnet(modalities: int) -> None:
    torch.manual_seed(0)
    names = ("audio", "visual", "text")[:modalities]
    model = precise(CentralNet({n: MLP(4, (5, 6), 3) for n in names}, classes=4))
    inputs = [some(2, 4, seed=i) for i in range(modalities)]
    found = model(*inputs)
    alone = model.head.unimodal_logits(
        {name: model.branches[name](x) for name, x in zip(names, inputs, strict=True)}
    )

    def weighted(scalars: Tensor, terms: Rows) -> list[float]:
        values = scalars.tolist()
        assert len(values) == len(terms)
        return [
            sum(a * term[k] for a, term in zip(values, terms, strict=True))
            for k in range(len(terms[0]))
        ]

    for sample in range(2):
        hidden: dict[str, Rows] = {}
        for name, x in zip(names, inputs, strict=True):
            first, second, last = (
                next(p for p in stage.modules() if isinstance(p, nn.Linear))
                for stage in model.branches[name].stages
            )
            h1 = relu(affine(x[sample].tolist(), first))
            h2 = relu(affine(h1, second))
            hidden[name] = [h1, h2, affine(h2, last)]
        one, two = (
            next(p for p in stage.modules() if isinstance(p, nn.Linear))
            for stage in model.central.stages
        )
        level = [[hidden[name][i] for name in names] for i in range(3)]
        central = relu(affine(weighted(model.merges[0].scalars, level[0]), one))
        central = affine(weighted(model.merges[1].scalars, [central, *level[1]]), two)
        merged = weighted(model.head.merge.scalars, [central, *level[2]])
        close(found[sample], affine(merged, model.head.classifier))
        for name in names:
            layer = model.head.branches.classifiers[name]
            close(alone[name][sample], affine(hidden[name][-1], layer))


def test_centralnet_starts_from_means() -> None:
    model = CentralNet({"a": CNN1d(2, 8), "b": CNN1d(3, 8), "c": CNN1d(1, 8)}, classes=2)
    scalars = [merge.scalars for merge in (*model.merges, model.head.merge)]
    assert [len(each) for each in scalars] == [3, 4, 4]
    for each in scalars:
        torch.testing.assert_close(each.detach(), torch.full_like(each, 1 / len(each)))


def test_the_central_network_is_a_copy_with_weights_of_its_own() -> None:
    model = CentralNet({"a": CNN1d(2, 8), "b": CNN1d(3, 8)}, classes=2)
    for mine, central in zip(
        model.branches["a"].stages[1:].parameters(), model.central.parameters(), strict=True
    ):
        assert mine is not central
        assert mine.shape == central.shape
        assert mine.ndim == 1 or not torch.equal(mine, central)


def test_branch_loss_is_the_weighted_sum_of_the_branches_own() -> None:
    model = precise(CentralNet({"a": MLP(4, (5,), 3), "b": MLP(4, (5,), 3)}, classes=3))
    inputs, target = (some(6, 4), some(6, 4, seed=2)), torch.arange(6) % 3
    expected = 0.0
    for (name, branch), x, weight in zip(model.branches.items(), inputs, (0.5, 1.0), strict=True):
        logits = model.head.branches.classifiers[name](branch(x))
        picked = [-row.log_softmax(0)[y].item() for row, y in zip(logits, target, strict=True)]
        expected += weight * sum(picked) / 6
    close(model.branch_loss(model.encode(*inputs), target, weights={"a": 0.5}), expected)
    with pytest.raises(eq.SetupError, match="unknown modality 'aa'"):
        model.branch_loss(model.encode(*inputs), target, weights={"aa": 0.5})


# ---------------------------------------------------------------------- TSN


def test_tsn_is_the_mean_of_the_class_scores_of_its_snippets() -> None:
    model = precise(TSN({"audio": MLP(6, (5,), 4), "visual": MLP(3, (4,), 2)}, classes=3))
    audio, visual = some(4, 5, 2, 3), some(4, 2, 3, seed=2)
    linear = model.head.linear
    expected = torch.zeros(4, 3, dtype=torch.float64)
    for segment in range(5):
        expected += model.encoders["audio"].encoder(audio[:, segment]) @ linear.weight[:, :4].T / 5
    for segment in range(2):
        expected += (
            model.encoders["visual"].encoder(visual[:, segment]) @ linear.weight[:, 4:].T / 2
        )
    close(model(audio, visual), expected + linear.bias)


def test_tsn_does_not_care_about_the_order_of_segments() -> None:
    model = precise(TSN({"audio": MLP(6, (5,), 4), "visual": MLP(3, (4,), 2)}, classes=3))
    audio, visual = some(4, 5, 6), some(4, 3, 3, seed=2)
    order = torch.tensor([3, 1, 4, 0, 2])
    close(model(audio[:, order], visual.flip(1)), model(audio, visual))


@pytest.mark.parametrize(("steps", "segments", "length"), [(12, 3, 4), (13, 4, 2), (10, 3, 1)])
def test_snippets_lie_in_their_segments(steps: int, segments: int, length: int) -> None:
    x = torch.arange(steps).expand(2, steps)
    starts = set()
    for seed in range(30):
        generator = torch.Generator().manual_seed(seed)
        snippets = sample_segments(x, segments, length, generator)
        assert snippets.shape == (2, segments, length)
        for s, snippet in enumerate(snippets[0].tolist()):
            assert snippet == list(range(snippet[0], snippet[0] + length))
            assert s * steps // segments <= snippet[0]
            assert snippet[-1] < (s + 1) * steps // segments
        starts.add(tuple(snippets[0, :, 0].tolist()))
    assert len(starts) > 1 or steps == segments * length
    middle = sample_segments(x, segments, length)
    assert torch.equal(middle, sample_segments(x, segments, length))


# ---------------------------------------------------------------------- cross-modal attention


def crossed_by_hand(layer: CrossModalLayer, tokens: Tensor, source: Tensor) -> Tensor:
    """One sample, one head and one query at a time."""

    def normed(x: Tensor, norm: nn.LayerNorm) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return scaled * norm.weight + norm.bias

    attention = layer.attention
    width, heads = attention.embed_dim, attention.num_heads
    w_q, w_k, w_v = attention.in_proj_weight.chunk(3)
    b_q, b_k, b_v = attention.in_proj_bias.chunk(3)
    keys_from = normed(source, layer.source_norm)
    queries = normed(tokens, layer.norm) @ w_q.T + b_q
    keys, values = keys_from @ w_k.T + b_k, keys_from @ w_v.T + b_v
    read = torch.empty_like(tokens)
    for t in range(len(tokens)):
        for head in range(heads):
            part = slice(head * width // heads, (head + 1) * width // heads)
            scores = [
                (queries[t, part] @ keys[s, part]).item() / math.sqrt(width // heads)
                for s in range(len(source))
            ]
            total = sum(math.exp(score) for score in scores)
            read[t, part] = sum(
                math.exp(score) / total * values[s, part] for s, score in enumerate(scores)
            )
    tokens = tokens + read @ attention.out_proj.weight.T + attention.out_proj.bias
    norm, first, _, last = layer.feedforward
    inner = normed(tokens, norm) @ first.weight.T + first.bias
    inner = inner * 0.5 * (1 + torch.erf(inner / math.sqrt(2)))
    return tokens + inner @ last.weight.T + last.bias


@pytest.mark.parametrize("modalities", [2, 3])
def test_cross_modal_transformer(modalities: int) -> None:
    torch.manual_seed(0)
    sizes = dict(zip(("audio", "visual", "text"), (3, 4, 5), strict=True))
    sizes = {name: sizes[name] for name in list(sizes)[:modalities]}
    model = precise(CrossModalTransformer(sizes, classes=4, features=8, layers=2, heads=2))
    inputs = [some(2, 3 + i, size, seed=i) for i, size in enumerate(sizes.values())]
    found = model(*inputs)
    tokens = {name: model.encoders[name](x) for name, x in zip(sizes, inputs, strict=True)}
    for sample in range(2):
        pieces = []
        for name in sizes:
            for source in sizes:
                if source != name:
                    z = tokens[name][sample]
                    for layer in model.head.pairs[name][source]:
                        z = crossed_by_hand(layer, z, tokens[source][sample])
                    pieces.append(z.mean(0))
        close(found[sample], model.head.linear(torch.cat(pieces)).detach())


def test_a_token_encoder_pools_to_the_sequence_transformer() -> None:
    model = precise(CrossModalTransformer({"a": 3, "b": 4}, classes=2, features=8, heads=2))
    x = some(2, 5, 3)
    encoder = model.encoders["a"]
    close(encoder(x).mean(dim=1), encoder.transformer(x))
