"""Two ranks with slices of the parameters (FSDP2) give the step of the one large batch."""

from __future__ import annotations

import atexit
import itertools
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import Shard

import equimodal as eq
from equimodal import functional, noise
from equimodal.noise import NoiseJob, NoiseSource
from equimodal.testing import spawn
from support.examples import ROOT, TWO_RANKS, assert_page_shows_diff, changed_lines, run
from support.worlds import World, batch, weights

pytestmark = pytest.mark.filterwarnings("ignore:.*does not follow the size of gradients")
PIECE = 20  # slices start and end within pieces, whose length is no multiple of what is vectorised


def deep() -> nn.Module:
    """A head without an exact split."""
    return nn.Sequential(nn.Linear(24, 9), nn.Tanh(), nn.Linear(9, 3))


def within() -> nn.Module:
    """A linear head inside a module of the user's."""
    return nn.Sequential(nn.Flatten(), nn.Linear(24, 3))


class Chained(nn.Sequential):
    """Two modules in a row, which are named as the head instead of this one."""


def chained() -> nn.Module:
    return Chained(nn.Linear(24, 9), nn.Linear(9, 3))


class Case(NamedTuple):
    methods: Callable[[], list[eq.Method]]
    units: str = "encoders, head"
    head: Callable[[], nn.Module] | None = None
    scores: Any = "auto"
    adam: bool = False
    micro: int = 1
    mesh: tuple[int, ...] = (2,)


def elements(**settings: Any) -> eq.Method:
    return eq.OGMGE(0.8, noise=eq.ElementNoise(), **settings)


CASES: dict[str, Case] = {
    "joint": Case(lambda: [eq.Joint()]),
    "ogm": Case(lambda: [eq.OGM(0.8)]),
    "ogm, head in the root": Case(lambda: [eq.OGM(0.8)], "encoders"),
    "ogm, root alone": Case(lambda: [eq.OGM(0.8)], ""),
    "ogm, ablation": Case(lambda: [eq.OGM(0.8)], head=deep),
    "ogm, ablation, root alone": Case(lambda: [eq.OGM(0.8)], "", deep),
    "ogm, linear within": Case(lambda: [eq.OGM(0.8)], head=within),
    "ogm, modules in a row": Case(lambda: [eq.OGM(0.8)], "encoders", chained),
    "ogm, modules in a row, root alone": Case(lambda: [eq.OGM(0.8)], "", chained),
    "ogm, probe": Case(lambda: [eq.OGM(0.8, smoothing=0.5)], scores="probe"),
    "ogm-ge": Case(lambda: [eq.OGMGE(0.8)]),
    "ogm-ge, adam": Case(lambda: [eq.OGMGE(0.8)], adam=True),
    "ogm-ge, micro-batches": Case(lambda: [eq.OGMGE(0.8)], micro=3),
    "ogm-ge, all parameters": Case(lambda: [eq.OGMGE(0.8, parameters="all")]),
    "ogm-ge, elements": Case(lambda: [elements(smoothing=0.5)]),
    "ogm-ge, updates": Case(lambda: [eq.OGMGE(0.8, space="update")], adam=True),
    "ogm-ge, elements, updates": Case(lambda: [elements(space="update")]),
    "ge": Case(lambda: [eq.GE()]),
    "multi-loss": Case(lambda: [eq.MultiLoss()]),
    "ensemble": Case(lambda: [eq.Ensemble()]),
    "unimodal": Case(lambda: [eq.Unimodal("visual")]),
    "ogm-ge and multi-loss": Case(lambda: [eq.OGMGE(0.8), eq.MultiLoss()]),
    "hybrid, sharded": Case(lambda: [elements(), eq.MultiLoss()], mesh=(1, 2)),
    "hybrid, replicated": Case(lambda: [eq.OGMGE(0.8)], mesh=(2, 1)),
}


def make(case: Case, dtype: torch.dtype, seed: int = 0) -> World:
    """A model with layers of 7 rows and of a single one: uneven slices, and empty ones."""
    torch.manual_seed(seed)
    world = World(3, dtype=dtype, seed=seed, head=None if case.head is None else case.head())
    narrow = nn.Sequential(nn.Linear(5, 1), nn.Tanh(), nn.Linear(1, 8), nn.Tanh())
    world.model.encoders["visual"] = narrow.to(dtype)
    return world


def optimise(world: World, case: Case) -> World:
    parameters = world.model.parameters()
    world.optimizer = (
        torch.optim.AdamW(parameters, lr=0.02)
        if case.adam
        else torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=1e-2)
    )
    return world


def balance(world: World, case: Case) -> eq.Balancer:
    scores = eq.Probe() if case.scores == "probe" else case.scores
    head = world.model.head
    row = [*head] if isinstance(head, Chained) else head
    return world.balance(*case.methods(), scores=scores, track_every=1, head=row)


def shard(case: Case, dtype: torch.dtype, seed: int = 0, **settings: Any) -> World:
    names = ("replicate", "shard")[-len(case.mesh) :]
    settings["mesh"] = init_device_mesh("cpu", case.mesh, mesh_dim_names=names)
    world = make(case, dtype, seed)
    if "encoders" in case.units:
        for encoder in world.encoders.values():
            fully_shard(encoder, **settings)
    if "head" in case.units:
        fully_shard(world.model.head, **settings)
    fully_shard(world.model, **settings)
    return optimise(world, case)


def train(
    world: World, balancer: eq.Balancer, wholes: Sequence[tuple[Tensor, ...]], micro: int
) -> None:
    """The loop of the design, with accumulation that communicates once, and with clipping."""
    model: Any = world.model
    for whole in wholes:
        for index, part in enumerate(zip(*(t.chunk(micro) for t in whole), strict=True)):
            if hasattr(model, "set_requires_gradient_sync"):
                model.set_requires_gradient_sync(index == micro - 1)
            *inputs, target = part
            balancer.backward(balancer.loss(model(*inputs), target) / micro)
        balancer.modulate()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        world.optimizer.step()
        world.optimizer.zero_grad()
        with torch.no_grad():  # evaluation between steps
            model(*whole[:-1])


def batches(dtype: torch.dtype) -> list[tuple[Tensor, ...]]:
    return [batch(24, 3, seed=seed, dtype=dtype) for seed in range(3)]


def parts(rank: int, dtype: torch.dtype) -> list[tuple[Tensor, ...]]:
    return [tuple(tensor[rank::2] for tensor in whole) for whole in batches(dtype)]


def whole(tensor: Any) -> Tensor:
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def full(world: World) -> Tensor:
    return torch.cat([whole(p.detach()).flatten() for p in world.model.parameters()])


def on_ranks(rank: int) -> dict[Any, Any]:
    results = {}
    for (name, case), dtype in itertools.product(CASES.items(), (torch.float32, torch.float64)):
        world = shard(case, dtype)
        balancer = balance(world, case)
        train(world, balancer, parts(rank, dtype), case.micro)
        results[name, dtype] = (full(world), balancer.metrics())
    return results


def everything(rank: int, folder: str) -> tuple[Any, Any, Any]:
    """All in one pair of processes: starting processes takes longer than training."""
    noise.PIECE_ON_CPU = PIECE
    results = on_ranks(rank), saved_on_ranks(rank, folder), refused_on_ranks(rank)
    # Processes with fully_shard on gloo were aborted now and then, also without a balancer. Gloo's
    # threads outlive the group there: do not take the interpreter down around them.
    atexit.register(os._exit, 0)
    return results


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("checkpoints")


@pytest.fixture(scope="module")
def pair(checkpoints: Path) -> Any:
    return spawn(everything, str(checkpoints))


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noise, "PIECE_ON_CPU", PIECE)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", CASES)
def test_equal_to_the_one_large_batch(pair: Any, name: str, dtype: torch.dtype) -> None:
    world = optimise(make(CASES[name], dtype), CASES[name])
    balancer = balance(world, CASES[name])
    start = weights(world.model)
    train(world, balancer, batches(dtype), 1)
    expected, metrics = weights(world.model), balancer.metrics()
    tolerance = 1e-9 if dtype == torch.float64 else 1e-6
    (first, found), (second, same) = (result[name, dtype] for result, _, _ in pair)
    assert torch.equal(first, second)
    assert (first - expected).abs().max() <= tolerance * expected.abs().max()
    assert (expected - start).abs().max() > 0.01
    for key, value in metrics.items():  # norms of whole gradients and updates too
        if not key.startswith("loss"):
            assert found[key] == same[key]
            assert found[key] == pytest.approx(value, rel=1e3 * tolerance), key


def test_every_method_that_declares_it_is_tested() -> None:
    tested = {method.name for case in CASES.values() for method in case.methods()}
    declared = {n for n, m in eq.methods.available().items() if m.capabilities.sharded}
    assert declared <= tested


SAVED = {
    "ogm-ge, elements": CASES["ogm-ge, elements"],
    "multi-loss, adam": Case(lambda: [elements(), eq.MultiLoss()], adam=True),
    "ogm-ge, probe": Case(lambda: [elements(space="update")], scores="probe"),
}


def saved_on_ranks(rank: int, folder: str) -> dict[str, Any]:
    """Save after two steps, load into a fresh run, and go on with both."""
    results = {}
    wholes = parts(rank, torch.float64)
    for name, case in SAVED.items():
        world = shard(case, torch.float64)
        balancer = balance(world, case)
        train(world, balancer, wholes[:2], 1)
        balancer.end_epoch()
        dcp.save(stateful(world, balancer), checkpoint_id=f"{folder}/{name}")
        train(world, balancer, wholes[2:], 1)

        other = shard(case, torch.float64, seed=9)
        resumed = balance(other, case)
        state = stateful(other, resumed)
        dcp.load(state, checkpoint_id=f"{folder}/{name}")
        set_state_dict(
            other.model,
            other.optimizer,
            model_state_dict=state["model"],
            optim_state_dict=state["optimizer"],
        )
        train(other, resumed, wholes[2:], 1)
        same = all(
            torch.equal(whole(a), whole(b))
            for a, b in zip(*(tensors(b.state_dict()) for b in (balancer, resumed)), strict=True)
        )
        results[name] = (full(world), full(other), resumed.steps, resumed.epoch, same)
    return results


def stateful(world: World, balancer: eq.Balancer) -> dict[str, Any]:
    model, optimizer = get_state_dict(world.model, world.optimizer)
    return {"model": model, "optimizer": optimizer, "balancer": balancer}


def tensors(state: Any) -> list[Tensor]:
    return [value for of in state["slices"].values() for value in of.values()]


@pytest.mark.parametrize("name", SAVED)
def test_a_distributed_checkpoint_resumes_bit_for_bit(pair: Any, name: str) -> None:
    for _, result, _ in pair:
        straight, resumed, steps, epoch, same = result[name]
        assert torch.equal(straight, resumed)
        assert (steps, epoch, same) == (3, 1, True)


@pytest.mark.parametrize("name", SAVED)
def test_a_distributed_checkpoint_is_continued_by_one_process(
    pair: Any, checkpoints: Path, name: str, tmp_path: Path
) -> None:
    dcp_to_torch_save(checkpoints / name, tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    world = optimise(make(SAVED[name], torch.float64, seed=5), SAVED[name])
    balancer = balance(world, SAVED[name])
    set_state_dict(
        world.model,
        world.optimizer,
        model_state_dict=state["model"],
        optim_state_dict=state["optimizer"],
    )
    balancer.load_state_dict(state["balancer"])
    train(world, balancer, batches(torch.float64)[2:], 1)
    torch.testing.assert_close(weights(world.model), pair[0][1][name][0], rtol=1e-9, atol=1e-10)


class Unproven(eq.Method):
    name = "unproven"


class Combines(eq.Method):
    name = "combines"
    capabilities = eq.Capabilities(sharded=True)

    def combine(self, modality: str, gradients: Any) -> None:
        return None


class Alone(eq.Method):
    name = "alone"
    capabilities = eq.Capabilities(ranks=False)


class Strength(eq.Noise):
    def std(self, gradient: Tensor, state: dict[str, Tensor]) -> Tensor:
        return gradient.abs().max()


def said(act: Callable[[], Any]) -> str:
    try:
        act()
    except (eq.SetupError, eq.StepError) as error:
        return str(error)
    return "nothing"


def refused_on_ranks(rank: int) -> dict[str, Any]:
    case, results = CASES["ogm-ge"], {}
    for method in (Unproven(), Combines(), eq.GE(noise=Strength())):
        results[type(method).__name__] = said(
            lambda method=method: shard(case, torch.float32).balance(method)  # type: ignore[misc]
        )
    results["Alone"] = said(
        lambda: World().balance(Alone(), process_group=torch.distributed.group.WORLD)
    )

    # A dimension other than the first: scaled, but no noise.
    settings = {
        "shard_placement_fn": lambda p: Shard(1) if p.ndim > 1 and p.shape[1] % 2 == 0 else None
    }
    dtype = torch.float64
    results["dimension"] = said(lambda: balance(shard(case, dtype, **settings), case))
    world = shard(CASES["ogm"], dtype, **settings)
    train(world, balance(world, CASES["ogm"]), parts(rank, dtype), 1)
    results["scaled"] = full(world)

    # A slice that is not finite, on one rank alone.
    world = shard(case, dtype)
    balancer = world.balance(elements())
    moments = []
    for index, (*inputs, target) in enumerate(parts(rank, dtype)[:2]):
        balancer.backward(balancer.loss(world.model(*inputs), target))
        gradient: Any = world.model.encoders["audio"][0].weight.grad
        if index == rank == 1:
            gradient.to_local().fill_(torch.inf)
        balancer.modulate()
        world.optimizer.step()
        state = balancer.modulation.state["encoders.audio.0.weight"]
        moments.append({name: whole(value).clone() for name, value in state.items()})
    results["not finite"] = moments

    # What a run cannot do, and what it leaves as it was.
    world = shard(case, dtype)
    balancer = balance(world, case)
    *inputs, target = parts(rank, dtype)[0]
    balancer.backward(balancer.loss(world.model(*inputs), target))
    results["between micro-batches"] = said(balancer.state_dict)
    results["export"] = said(balancer.export)
    balancer.modulate()
    with torch.no_grad():
        whole_model = full(world)
        logits = balancer.unimodal_logits(*inputs)
        results["unimodal"] = {name: each.clone() for name, each in logits.items()}
        results["sharded after"] = all(
            hasattr(p, "full_tensor") for p in world.model.head.parameters()
        )
        assert torch.equal(whole_model, full(world))
    balancer.detach()

    # Lower precision by the policy of fully_shard.
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16)
    for name in ("ogm-ge", "ogm, ablation", "multi-loss", "ogm, root alone"):
        world = shard(CASES[name], torch.float32, mp_policy=policy)
        train(world, balance(world, CASES[name]), parts(rank, torch.float32), 1)
        results[f"low, {name}"] = full(world)
    return results


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("Unproven", ["Unproven does not declare", "Capabilities(sharded=True)"]),
        ("Combines", ["Combines combines the gradients", "use DistributedDataParallel"]),
        ("GE", ["Strength() says how strong", "sliced_stds"]),
        ("Alone", ["Alone does not work on several ranks, found 2"]),
        ("dimension", ["is sharded along dimension 1", "shard_placement_fn"]),
        ("between micro-batches", ["1 micro-batches", "after optimizer.step()"]),
        ("export", ["cannot be copied", "full_state_dict=True"]),
    ],
)
def test_what_does_not_work_is_refused_with_the_reason(
    pair: Any, what: str, words: list[str]
) -> None:
    for _, _, result in pair:
        for word in words:
            assert word in result[what]


def test_slices_along_another_dimension_are_scaled(pair: Any) -> None:
    world = optimise(make(CASES["ogm"], torch.float64), CASES["ogm"])
    train(world, balance(world, CASES["ogm"]), batches(torch.float64), 1)
    torch.testing.assert_close(pair[0][2]["scaled"], weights(world.model), rtol=1e-9, atol=1e-10)


def test_a_slice_that_is_not_finite_leaves_the_moments_of_all_ranks_alone(pair: Any) -> None:
    for _, _, result in pair:
        before, after = result["not finite"]
        assert before["deviation"].shape == (7, 4)
        for name, value in before.items():
            assert value.isfinite().all()
            assert torch.equal(value, after[name])


def test_unimodal_logits_without_gradients_leave_the_head_sharded(pair: Any) -> None:
    world = make(CASES["ogm-ge"], torch.float64)
    optimise(world, CASES["ogm-ge"])
    *inputs, _ = batches(torch.float64)[0]
    with torch.no_grad():
        expected = balance(world, CASES["ogm-ge"]).unimodal_logits(*inputs)
    for rank, (_, _, result) in enumerate(pair):
        assert result["sharded after"]
        for name, logits in expected.items():
            torch.testing.assert_close(result["unimodal"][name], logits[rank::2])


@pytest.mark.parametrize("name", ["ogm-ge", "ogm, ablation", "multi-loss", "ogm, root alone"])
def test_parameters_in_low_precision_train(pair: Any, name: str) -> None:
    world = optimise(make(CASES[name], torch.float32), CASES[name])
    train(world, balance(world, CASES[name]), batches(torch.float32), 1)
    first, second = (result[f"low, {name}"] for _, _, result in pair)
    assert torch.equal(first, second)
    assert (first - weights(world.model)).abs().max() < 0.1  # as far as bfloat16 reaches


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("piece", [2**15, 500, 17])
def test_slices_get_the_numbers_of_their_places(
    piece: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(noise, "PIECE_ON_CPU", piece)
    total = 2 * piece + 77
    std = torch.rand(total, dtype=dtype)
    expected = torch.zeros(total, dtype=dtype)
    NoiseSource(1).add_([NoiseJob(expected, std, 3)], 2)
    cuts = [0, 5, 5, piece - 1, piece, piece + 40, total - 1, total, total]
    for start, end in itertools.pairwise(cuts):
        part = torch.zeros(end - start, dtype=dtype)
        NoiseSource(1).add_([NoiseJob(part, std[start:end], 3, start, total)], 2)
        assert torch.equal(part, expected[start:end])


@pytest.mark.parametrize("shift", [0.0, 100.0])
def test_the_deviation_of_slices_is_that_of_the_whole(shift: float) -> None:
    values = torch.randn(1001, generator=torch.Generator().manual_seed(0)) + shift
    for cuts in ([501, 500], [1001, 0], [1, 1000], [400, 400, 201]):
        moments = torch.stack([functional.slice_moments(p) for p in values.split(cuts)])
        found = functional.sliced_std(moments[:, None])
        assert found.item() == pytest.approx(values.double().std().item(), rel=1e-6)
    one = torch.stack([functional.slice_moments(p) for p in (torch.ones(1), torch.ones(0))])
    assert functional.sliced_std(one[:, None]).item() == 0


PLAIN, BALANCED = (ROOT / "examples" / f"fsdp_{kind}.py" for kind in ("plain", "balanced"))
# Leaves the interpreter without taking it down: see `everything`.
LEAVE = "import os, runpy, sys; runpy.run_path(sys.argv[1]); sys.stdout.flush(); os._exit(0)"


def test_the_example_changes_few_lines_and_the_page_shows_them() -> None:
    assert changed_lines(PLAIN, BALANCED) <= 5
    assert_page_shows_diff(ROOT / "docs" / "trainers" / "fsdp.md", PLAIN, BALANCED)


def test_the_example_trains_and_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    launcher = (*TWO_RANKS, "--no-python", sys.executable, "-c", LEAVE)
    monkeypatch.setenv("CHECKPOINTS", str(tmp_path))
    accuracies = []
    for epochs in (1, 2):
        monkeypatch.setenv("EPOCHS", str(epochs))
        (printed,) = run(BALANCED, launcher=launcher)
        done, accuracy = re.fullmatch(r"(\d) epochs, validation accuracy (.*)\n", printed).groups()  # type: ignore[union-attr]
        assert int(done) == epochs
        assert len(list(tmp_path.glob("*/.metadata"))) == epochs
        accuracies.append(float(accuracy))
    assert max(accuracies) > 0.5  # of 7 classes


def test_the_plain_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    launcher = (*TWO_RANKS, "--no-python", sys.executable, "-c", LEAVE)
    monkeypatch.setenv("CHECKPOINTS", str(tmp_path))
    monkeypatch.setenv("EPOCHS", "1")
    (printed,) = run(PLAIN, launcher=launcher)
    assert printed.startswith("1 epochs, validation accuracy")
