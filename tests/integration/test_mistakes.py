"""Mistakes that people will make: each is refused or noticed, with what to do."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, TensorDataset

import equimodal as eq
from support.worlds import Net, World, batch, train
from support.worst_fits import Resamples


def step(world: World, balancer: eq.Balancer, whole: tuple[Tensor, ...] | None = None) -> None:
    *inputs, target = batch() if whole is None else whole
    balancer.backward(balancer.loss(world.model(*inputs), target))
    balancer.modulate()


def test_the_head_inside_an_encoder() -> None:
    class Nested(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.audio, self.visual = (
                nn.Linear(4, 8),
                nn.Sequential(nn.Linear(5, 8), nn.Linear(8, 3)),
            )

    model = Nested()
    with pytest.raises(eq.SetupError, match=r"head lies inside encoders\['visual'\].*without it"):
        eq.Balancer(
            eq.OGM(),
            model,
            {"audio": model.audio, "visual": model.visual},
            model.visual[1],
            torch.optim.SGD(model.parameters(), lr=0.1),
        )


def test_an_encoder_that_the_optimizer_does_not_train() -> None:
    model = Net()
    optimizer = torch.optim.SGD([*model.encoders["audio"].parameters(), *model.head.parameters()])
    with pytest.warns(eq.BalanceWarning, match=r"encoders\['visual'\].*optimizer"):
        eq.Balancer(eq.OGM(), model, model.encoders, model.head, optimizer)


def test_a_part_of_an_encoder_that_the_optimizer_does_not_train() -> None:
    world = World()
    left_out = world.encoders["visual"][2].bias  # type: ignore[index]
    kept = [parameter for parameter in world.model.parameters() if parameter is not left_out]
    world.optimizer = torch.optim.SGD(kept, lr=0.1)
    found = world.balance(eq.OGM()).check(batch())
    assert [m.untrained for m in found.modalities] == [0, 8]
    assert str(found).count("8 in no optimizer") == 1


@pytest.mark.parametrize("makes", [torch.optim.SGD, torch.optim.AdamW])
def test_an_optimizer_replaced_after_attaching(makes: Any) -> None:
    world = World()
    balancer = world.balance(eq.OGM(0.8))
    train(balancer, [batch()])
    world.optimizer = makes(world.model.parameters(), lr=0.1)
    step(world, balancer)
    world.optimizer.step()
    with pytest.raises(eq.StepError, match=rf"{makes.__name__}.*\(SGD\).*was it replaced.*Make"):
        step(world, balancer)


def test_an_optimizer_that_calls_another_is_not_taken_for_a_replacement() -> None:
    """As sharpness-aware minimisation does."""

    class Wrapping(torch.optim.Optimizer):
        def __init__(self, inner: torch.optim.Optimizer) -> None:
            self.inner = inner
            super().__init__([p for group in inner.param_groups for p in group["params"]], {})

        def step(self, closure: Any = None) -> None:
            self.inner.step()

    world = World()
    world.optimizer = Wrapping(world.optimizer)
    balancer = world.balance(eq.OGM(0.8))
    for _ in range(3):
        step(world, balancer)
        world.optimizer.step()
    assert balancer.steps == 3


def test_other_optimizers_of_the_process_are_let_be() -> None:
    world, other = World(), World(seed=1)
    balancer, theirs = world.balance(eq.MultiLoss(), eq.OGM(0.8)), other.balance(eq.OGM(0.8))
    for _ in range(3):
        train(balancer, [batch()])
        train(theirs, [batch()])
    assert balancer.steps == theirs.steps == 3


def test_a_method_in_two_balancers() -> None:
    """They would share its state: each its running means, and the modules it makes."""
    method, probe = eq.MultiLoss(), eq.Probe()
    balancer = World().balance(method, eq.OGM(0.8), scores=probe)
    with pytest.raises(eq.SetupError, match=r"MultiLoss is in use by another.*copy.deepcopy"):
        World(seed=1).balance(method)
    with pytest.raises(eq.SetupError, match="Probe is in use by another"):
        World(seed=1).balance(eq.OGM(0.8), scores=probe)
    train(balancer, [batch()])
    World(seed=1).balance(copy.deepcopy(method))
    balancer.detach()
    train(World(seed=1).balance(method), [batch()])


def test_a_method_whose_balancer_was_dropped_or_refused() -> None:
    method, world = eq.OGM(0.8), World()
    world.balance(method)  # nobody holds it
    with pytest.raises(eq.SetupError, match="needs training data"):
        world.balance(method, Resamples())
    world.balance(method)


def test_training_in_evaluation_mode() -> None:
    world = World()
    balancer = world.balance(eq.OGM(0.8))
    world.model.eval()
    with pytest.warns(
        eq.BalanceWarning, match=r"SmallModel is trained in evaluation mode.*model.train()"
    ):
        train(balancer, [batch()])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(balancer, [batch()])  # it is said once
        with torch.no_grad():
            balancer.loss(world.model(*batch()[:-1]), batch()[-1])  # and not of an evaluation


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_no_gradients_around_the_forward(mode: Callable[[], Any]) -> None:
    world = World()
    balancer = world.balance(eq.OGM(0.8))
    *inputs, target = batch()
    with mode():
        logits = world.model(*inputs)
    with pytest.raises(eq.MatchError, match=r"no_grad.*Run the model with gradients"):
        balancer.loss(logits, target)


@pytest.mark.parametrize("detached", [True, False])
def test_features_kept_from_another_batch(detached: bool) -> None:
    world = World()
    balancer = world.balance(eq.OGM(0.8))
    (audio, visual, target), other = batch(), batch(seed=2)
    encoders = world.model.encoders
    step(world, balancer)
    kept = encoders["audio"](audio)
    world.model.head(torch.cat([kept, encoders["visual"](visual)], 1))
    kept = kept.detach() if detached else kept
    logits = world.model.head(torch.cat([kept, encoders["visual"](other[1])], 1))
    with pytest.raises(
        eq.MatchError, match=r"encoder of audio did not run.*encode every batch anew"
    ):
        balancer.loss(logits, target)


def test_a_target_on_another_device() -> None:
    world = World()
    balancer = world.balance(eq.OGM(0.8))
    *inputs, target = batch()
    with pytest.raises(eq.MatchError, match=r"target is on meta, .* on cpu.*target.to\(logits"):
        balancer.loss(world.model(*inputs), target.to("meta"))


def test_a_method_that_resamples_without_batches() -> None:
    world = World()
    whole = TensorDataset(*batch())
    balancer = world.balance(
        Resamples(), train_loader=DataLoader(whole), val_loader=DataLoader(whole)
    )
    with pytest.warns(eq.BalanceWarning, match=r"for batch in balancer.batches\(loader\)"):
        step(world, balancer)


@pytest.mark.parametrize(
    ("methods", "words"),
    [
        ([eq.OGM(), eq.OGMGE()], "OGMGE is a OGM.*give one"),
        ([eq.OGMGE(), eq.Ensemble()], "OGMGE cannot be combined with Ensemble.*leave out OGMGE"),
        ([eq.Unimodal("audio"), eq.OGM()], "OGM cannot be combined with Unimodal"),
    ],
)
def test_methods_that_make_no_sense_together(methods: list[eq.Method], words: str) -> None:
    with pytest.raises(eq.SetupError, match=words):
        World().balance(*methods)


def test_a_compiled_model_with_encoders_by_name() -> None:
    world = World()
    with pytest.raises(eq.SetupError, match=r"already compiled.*attach the balancer first"):
        eq.Balancer(
            eq.OGM(),
            torch.compile(world.model),
            {"audio": "encoders.audio", "visual": "encoders.visual"},
            "head",
            world.optimizer,
        )


@pytest.mark.parametrize("space", ["gradient", "update"])
@pytest.mark.parametrize("to_none", [True, False])
def test_modulating_every_micro_batch(space: Any, to_none: bool) -> None:
    """What was modulated would be modulated once more, or half of the evidence would be lost."""
    world = World()
    balancer = world.balance(eq.OGM(0.8, space=space))
    step(world, balancer)
    with pytest.raises(eq.StepError, match=r"modulated.*not been stepped.*once per optimizer step"):
        step(world, balancer)
    world.optimizer.zero_grad(set_to_none=to_none)  # as a loop does that leaves a bad step out
    step(world, balancer)


def test_optimizers_that_take_turns() -> None:
    """Each clears its own gradients alone; those of the other are left over from its step."""
    world = World()
    audio, visual = (world.encoders[name].parameters() for name in ("audio", "visual"))
    turns = [
        torch.optim.SGD(audio, lr=0.1),
        torch.optim.SGD([*visual, *world.model.head.parameters()], lr=0.1),
    ]
    world.optimizer = turns  # type: ignore[assignment]
    balancer = world.balance(eq.OGM(0.8))
    for optimizer in [*turns, *turns]:
        optimizer.zero_grad()
        step(world, balancer)
        optimizer.step()
    assert balancer.steps == 4
    turns[0].zero_grad()
    step(world, balancer)
    with pytest.raises(eq.StepError, match=r"modulated.*not been stepped"):
        step(world, balancer)


@pytest.mark.parametrize("early", [False, True])
def test_an_optimizer_of_another_model_steps_in_between(early: bool) -> None:
    """As that of a discriminator does: it says nothing of the gradients of this model."""
    world, judge = World(), nn.Linear(3, 1, dtype=torch.float64)
    others = torch.optim.SGD(judge.parameters(), lr=0.1)
    optimizer, world.optimizer = world.optimizer, [world.optimizer, others]  # type: ignore[assignment]
    balancer = world.balance(eq.OGM(0.8))
    for _ in range(2):
        *inputs, target = batch()
        logits = world.model(*inputs)
        loss = balancer.loss(logits, target)
        if not early:
            balancer.backward(loss)
        judge(logits.detach()).mean().backward()
        others.step()
        others.zero_grad()
        if early:
            balancer.backward(loss)
        balancer.modulate()
        optimizer.step()
        optimizer.zero_grad()
    assert balancer.steps == 2


def test_a_loss_that_is_left_out_with_its_step() -> None:
    """As Lightning does where training_step returns None: the step has no gradient."""
    world = World()
    balancer = world.balance(eq.OGM(0.8))
    *inputs, target = batch()
    balancer.loss(world.model(*inputs), target)
    world.optimizer.step()
    train(balancer, [batch()])
    assert balancer.steps == 1


@pytest.mark.parametrize("closure", [False, True])
def test_a_loss_backpropagated_without_the_balancer(closure: bool) -> None:
    world = World()
    balancer = world.balance(eq.OGM(0.8))

    def plainly() -> Tensor:
        *inputs, target = batch()
        loss = balancer.loss(world.model(*inputs), target)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    with pytest.warns(eq.BalanceWarning, match=r"has not seen.*balancer.backward\(loss\)") as said:
        if closure:
            world.optimizer.step(plainly)
        else:
            plainly()
            world.optimizer.step()
    assert said[0].filename == __file__, "the line of the user's"


def test_a_loss_that_is_only_looked_at() -> None:
    """Another loss of the same step, for a log, is no mistake."""
    world = World()
    balancer = world.balance(eq.OGM(0.8))
    *inputs, target = batch()
    for _ in range(2):
        balancer.loss(world.model(*inputs), target)
        train(balancer, [batch()])


def test_not_a_number_in_the_first_batch() -> None:
    """It says what it is, and does not decide how the run is scored."""
    world = World()
    balancer = world.balance(eq.OGM(0.8))
    audio, visual, target = batch()
    audio[0] = torch.nan
    with pytest.warns(eq.BalanceWarning, match="unimodal loss of audio is NaN or infinite"):
        train(balancer, [(audio, visual, target)])
    assert isinstance(balancer.scores.chosen, eq.Split)


def test_nothing_but_nan_in_the_first_batch() -> None:
    world = World()
    balancer = world.balance(eq.OGM(0.8))
    audio, visual, target = batch()
    with pytest.warns(eq.BalanceWarning, match="NaN"):
        step(world, balancer, (audio * torch.nan, visual, target))
    world.optimizer.zero_grad()
    assert isinstance(balancer.scores.chosen, eq.Split), "not decided by the numbers"


@pytest.mark.parametrize("warm", [False, True])
def test_a_batch_without_samples(warm: bool) -> None:
    world = World()
    balancer = world.balance(eq.OGM(0.8))
    if warm:
        train(balancer, [batch()])
    with pytest.raises(eq.MatchError, match=r"holds no sample.*leave it out"):
        step(world, balancer, tuple(tensor[:0] for tensor in batch()))


class Detached(Net):
    def forward(self, audio: Tensor, visual: Tensor) -> Tensor:
        features = [self.encoders["audio"](audio).detach(), self.encoders["visual"](visual)]
        return self.head(torch.cat(features, dim=1))


def test_a_feature_that_was_detached() -> None:
    world = World()
    world.model.__class__ = Detached
    balancer = world.balance(eq.OGM(0.8))
    with pytest.raises(eq.MatchError, match=r"none .* depends on .*encoder of audio.*detached"):
        step(world, balancer)


@pytest.mark.parametrize("space", ["gradient", "update"])
def test_an_encoder_that_no_gradient_reaches(space: Any) -> None:
    world = World()
    world.model.__class__ = Detached
    widths = {"audio": slice(0, 8), "visual": slice(8, 16)}
    balancer = world.balance(eq.OGM(0.8, space=space), features=widths)
    with pytest.warns(eq.BalanceWarning, match=r"no gradient reached encoders\['audio'\].*detach"):
        train(balancer, [batch(), batch()])
    unread = eq.Evidence(balancer.names, torch.empty(2, device="meta"), [len(batch()[0])])
    balancer.notices.untouched(["audio"], unread)  # said once: no device is waited for again


def test_no_gradient_is_missed_where_the_method_does_not_act() -> None:
    world = World()
    world.model.__class__ = Detached
    widths = {"audio": slice(0, 8), "visual": slice(8, 16)}
    balancer = world.balance(eq.OGM(0.8, window=(1, 9)), features=widths)
    train(balancer, [batch()])


def test_a_modality_without_samples_needs_no_gradient() -> None:
    class Blind(Net):
        def forward(self, audio: Tensor, visual: Tensor) -> Tensor:
            nothing = torch.zeros(len(visual), 8, dtype=visual.dtype)
            return self.head(torch.cat([nothing, self.encoders["visual"](visual)], dim=1))

    world = World()
    balancer = world.balance(eq.OGM(0.8))
    train(balancer, [batch()])
    world.model.__class__ = Blind
    *inputs, target = batch()
    nobody = torch.zeros(len(target), dtype=torch.bool)
    balancer.backward(balancer.loss(world.model(*inputs), target, present={"audio": nobody}))
    balancer.modulate()


def test_a_state_of_something_else() -> None:
    world = World()
    with pytest.raises(
        eq.SetupError, match=r"balancer.load_state_dict: expected what .*state_dict"
    ):
        world.balance(eq.OGM(0.8)).load_state_dict(world.model.state_dict())


def test_a_schedule_in_place_of_the_optimizer() -> None:
    world = World()
    world.optimizer = torch.optim.lr_scheduler.StepLR(world.optimizer, 1)  # type: ignore[assignment]
    with pytest.raises(eq.SetupError, match=r"expected a torch.optim.Optimizer, found StepLR"):
        world.balance(eq.OGM(0.8))


@pytest.mark.parametrize(
    ("criterion", "words"),
    [
        (nn.CrossEntropyLoss, r"found the class CrossEntropyLoss: write CrossEntropyLoss\(\)"),
        ("mse", r"a function of \(logits, target\).*found 'mse'"),
    ],
)
def test_a_criterion_that_is_none(criterion: Any, words: str) -> None:
    with pytest.raises(eq.SetupError, match=rf"criterion: expected .*{words}"):
        World().balance(eq.OGM(0.8), criterion=criterion)


def test_a_model_that_is_no_module() -> None:
    world = World()
    with pytest.raises(eq.SetupError, match=r"model: expected a torch.nn.Module, found function"):
        world.balance(eq.OGM(0.8), model=lambda *inputs: world.model(*inputs))  # type: ignore[arg-type]


def test_the_name_of_a_method_in_place_of_it() -> None:
    with pytest.raises(eq.SetupError, match=r"found 'ogm-ge': write .*eq.methods.find\('ogm-ge'\)"):
        World().balance("ogm-ge")  # type: ignore[arg-type]


def test_a_loss_after_detaching() -> None:
    world = World()
    balancer = world.balance(eq.OGM(0.8))
    balancer.detach()
    with pytest.raises(eq.MatchError, match=r"this balancer is detached.*make another"):
        step(world, balancer)


def test_a_loss_that_is_a_number() -> None:
    world = World()
    balancer = world.balance(eq.OGM(0.8))
    *inputs, target = batch()
    loss = balancer.loss(world.model(*inputs), target)
    with pytest.raises(eq.StepError, match=r"was not computed from what balancer.loss returned"):
        balancer.backward(loss.item())  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["head", "encoders.audio"])
def test_a_module_replaced_after_attaching(name: str) -> None:
    world = World()
    balancer = world.balance(eq.OGM(0.8))
    train(balancer, [batch()])
    owner, _, child = name.rpartition(".")
    setattr(world.model.get_submodule(owner), child, copy.deepcopy(world.model.get_submodule(name)))
    with pytest.raises(eq.MatchError, match=rf"the model's '{name}', was replaced .*LoRA"):
        step(world, balancer)


def test_encoders_in_reentrant_checkpoints() -> None:
    class Hidden(Net):
        def forward(self, *inputs: Tensor) -> Tensor:
            pairs = zip(self.encoders.values(), inputs, strict=True)
            given = [checkpoint(e, x.requires_grad_(), use_reentrant=True) for e, x in pairs]
            return self.head(torch.cat(given, dim=1))  # type: ignore[no-any-return]

    world = World()
    world.model.__class__ = Hidden
    with pytest.raises(eq.MatchError, match=r"no encoder ran .*use_reentrant=False"):
        step(world, world.balance(eq.OGM(0.8)))
