"""Inside Hugging Face's Trainer: the plain loop's parameters, resumed and stopped as it does."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn
from torch.utils.data import Dataset

import equimodal as eq
from equimodal.integrations.transformers import BalancedTrainer
from equimodal.testing import spawn
from support.examples import ROOT, assert_page_shows_diff, changed_lines, run
from support.loops import (
    ACCUMULATE,
    CLIP,
    EPOCHS,
    MICRO,
    STEPS,
    Loop,
    always,
    as_if_launched,
    dataset,
    hooks_of,
    ogm_ge,
    schedule,
)
from support.worlds import World, weights

EXAMPLES = [ROOT / "examples" / f"transformers_{kind}.py" for kind in ("plain", "balanced")]
Make = Callable[[], eq.Method]


class Model(nn.Module):
    """As the Trainer wants one: takes labels, returns loss and logits."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.net = self.world.model

    def forward(self, audio: Tensor, visual: Tensor, labels: Tensor | None = None) -> Any:
        logits = self.net(audio, visual)
        if labels is None:
            return {"logits": logits}
        return {"loss": F.cross_entropy(logits, labels), "logits": logits}


class Counting(Model):
    """Divides by the number of labels in all micro-batches, as models of transformers do."""

    def forward(  # type: ignore[override]
        self, audio: Tensor, visual: Tensor, labels: Tensor, **kwargs: Any
    ) -> Any:
        logits = self.net(audio, visual)
        count = kwargs.get("num_items_in_batch")
        loss = F.cross_entropy(logits, labels, reduction="mean" if count is None else "sum")
        return loss if count is None else loss / count, logits


class Samples(Dataset[dict[str, Tensor]]):
    def __init__(self, ignored: int = 0) -> None:
        audio, visual, labels = (tensor.clone() for tensor in dataset().tensors)
        labels[: 5 * ignored : 5] = -100
        self.columns = {"audio": audio, "visual": visual, "labels": labels}

    def __len__(self) -> int:
        return len(self.columns["labels"])

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {name: column[index] for name, column in self.columns.items()}


def balance(make: Make, **settings: Any) -> Callable[..., eq.Balancer]:
    def made(model: Any, optimizer: torch.optim.Optimizer) -> eq.Balancer:
        encoders = dict(model.net.encoders.items())
        return eq.Balancer(make(), model, encoders, model.net.head, optimizer, **settings)

    return made


def trainer_for(
    folder: Path,
    make: Make = always,
    *,
    model: Model | None = None,
    of: type[transformers.Trainer] = BalancedTrainer,
    ranks: int = 1,
    data: Dataset[Any] | None = None,
    arguments: dict[str, Any] | None = None,
    **settings: Any,
) -> Any:
    model = model or Model()
    optimizer = model.world.optimizer
    if issubclass(of, BalancedTrainer):
        settings.setdefault("balance", balance(make))
    defaults: dict[str, Any] = {
        "num_train_epochs": EPOCHS,
        "per_device_train_batch_size": MICRO // ranks,
        "gradient_accumulation_steps": ACCUMULATE,
        "max_grad_norm": CLIP,
        "train_sampling_strategy": "sequential",
        "save_strategy": "no",
        "logging_steps": 5,
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        "ddp_find_unused_parameters": False,
        "dataloader_pin_memory": False,
    }
    return of(
        model=model,
        args=transformers.TrainingArguments(str(folder), **{**defaults, **(arguments or {})}),
        train_dataset=data or Samples(),
        eval_dataset=Samples(),
        optimizers=(optimizer, schedule(optimizer)),
        **settings,
    )


def found(trainer: Any) -> Tensor:
    return weights(trainer.model.net)


def hooks(trainer: Any) -> int:
    return hooks_of(trainer.model, trainer.optimizer)


@pytest.fixture(autouse=True)
def quiet(capsys: pytest.CaptureFixture[str]) -> None:
    transformers.logging.set_verbosity_error()


# ---------------------------------------------------------------------- the same run


@pytest.mark.parametrize("make", [always, ogm_ge])
@pytest.mark.parametrize("clip", [CLIP, 0.0])
def test_equals_the_plain_loop(tmp_path: Path, make: Make, clip: float) -> None:
    trainer = trainer_for(tmp_path, make, arguments={"max_grad_norm": clip})
    trainer.train()
    loop = Loop(make, clip)
    assert torch.equal(found(trainer), loop.train())
    assert (trainer.balancer.steps, trainer.balancer.epoch) == (STEPS, EPOCHS)
    state = str(trainer.balancer.state_dict()).replace("'net.", "'")  # names of parameters
    assert state == str(loop.balancer.state_dict())
    assert hooks(trainer) == 0
    assert "backward" not in vars(trainer.accelerator)
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert all(f"balance/ratio/{name}" in e for e in logged for name in ("audio", "visual"))


def on_ranks(rank: int, folder: str) -> dict[str, Any]:
    as_if_launched(rank)
    warnings.simplefilter("error")
    trainer = trainer_for(Path(folder), ogm_ge, ranks=2)
    trainer.train()
    assert trainer.accelerator.num_processes == 2
    counting = trainer_for(Path(folder), model=Counting(), ranks=2, data=Samples(20))
    counting.train()
    return {
        "trainer": found(trainer),
        "state": str(trainer.balancer.state_dict()),
        "plain": Loop(ogm_ge).train(),
        "hooks": hooks(trainer),
        "counting": found(counting),
    }


def test_two_ranks_equal_the_plain_loop_and_the_one_large_batch(tmp_path: Path) -> None:
    first, second = spawn(on_ranks, str(tmp_path))
    assert torch.equal(first["trainer"], second["trainer"])
    assert first["state"] == second["state"]
    assert torch.equal(first["trainer"], first["plain"])
    assert first["hooks"] == second["hooks"] == 0
    torch.testing.assert_close(first["trainer"], Loop(ogm_ge).train(), rtol=1e-9, atol=1e-10)
    counting = trainer_for(tmp_path, model=Counting(), data=Samples(20))
    counting.train()
    torch.testing.assert_close(first["counting"], found(counting), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("kind", [Model, Counting])
def test_without_a_method_it_is_the_trainer_itself(tmp_path: Path, kind: type[Model]) -> None:
    data = Samples(20) if kind is Counting else None
    plain = trainer_for(tmp_path, of=transformers.Trainer, model=kind(), data=data)
    joint = trainer_for(tmp_path, eq.Joint, model=kind(), data=data)
    plain.train()
    joint.train()
    torch.testing.assert_close(found(joint), found(plain), rtol=1e-12, atol=1e-13)


def test_labels_counted_over_all_micro_batches_give_the_one_large_batch(tmp_path: Path) -> None:
    """Ignored labels make micro-batches of different weight."""
    whole = {"per_device_train_batch_size": MICRO * ACCUMULATE, "gradient_accumulation_steps": 1}
    parts = trainer_for(tmp_path, model=Counting(), data=Samples(20))
    large = trainer_for(tmp_path, model=Counting(), data=Samples(20), arguments=whole)
    parts.train()
    large.train()
    torch.testing.assert_close(found(parts), found(large), rtol=1e-9, atol=1e-10)


def test_a_short_last_step_and_the_trainer_s_own_optimizer(tmp_path: Path) -> None:
    """152 samples leave a step of two micro-batches; SGD and its schedule are the Trainer's."""
    data = torch.utils.data.Subset(Samples(), range(152))
    trainer = trainer_for(
        tmp_path,
        data=data,
        arguments={"optim": "sgd", "learning_rate": 0.1, "max_grad_norm": 0.0},
    )
    trainer.optimizer = trainer.lr_scheduler = None
    trainer.train()
    net, steps = World().model, 20
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    rates = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: (steps - step) / steps)
    balancer = eq.Balancer(always(), net, dict(net.encoders.items()), net.head, optimizer)
    micro = [[tensor[i : i + MICRO] for tensor in dataset().tensors] for i in range(0, 152, MICRO)]
    for _ in range(EPOCHS):
        for start in range(0, len(micro), ACCUMULATE):
            step = micro[start : start + ACCUMULATE]
            for *inputs, target in step:
                balancer.backward(balancer.loss(net(*inputs), target) / len(step))
            balancer.modulate()
            optimizer.step()
            rates.step()
            optimizer.zero_grad()
    assert torch.equal(found(trainer), weights(net))


# ---------------------------------------------------------------------- resumed and stopped


def test_resumed_equals_uninterrupted(tmp_path: Path) -> None:
    """In the middle of an epoch, and from the last step of one, whose epoch has not ended yet."""
    saving = {"save_strategy": "steps", "save_steps": 5}
    straight = trainer_for(tmp_path, ogm_ge, arguments=saving)
    straight.train()
    for step in (5, 10, 15):
        model = Model()
        with torch.no_grad():
            model.net.head.weight.zero_()  # what is resumed must not be what was there
        resumed = trainer_for(tmp_path / "again", ogm_ge, model=model)
        resumed.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{step}"))
        assert torch.equal(found(resumed), found(straight))
        assert str(resumed.balancer.state_dict()) == str(straight.balancer.state_dict())


def test_a_checkpoint_of_a_plain_trainer_is_resumed_with_a_warning(tmp_path: Path) -> None:
    saving = {"save_strategy": "steps", "save_steps": 5, "max_steps": 5}
    trainer_for(tmp_path, of=transformers.Trainer, arguments=saving).train()
    trainer = trainer_for(tmp_path / "again")
    with pytest.warns(eq.BalanceWarning, match=r"holds no balancer\.pt"):
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-5"))


def test_stopped_early_and_taken_back_to_the_best_checkpoint(tmp_path: Path) -> None:
    trainer = trainer_for(
        tmp_path,
        arguments={
            "eval_strategy": "steps",
            "eval_steps": 3,
            "save_strategy": "steps",
            "save_steps": 3,
            "load_best_model_at_end": True,
            "metric_for_best_model": "eval_loss",
            "greater_is_better": True,  # the loss falls, so that nothing is better than the first
        },
        callbacks=[transformers.EarlyStoppingCallback(early_stopping_patience=2)],
    )
    trainer.train()
    assert trainer.state.global_step == 9
    assert trainer.state.best_global_step == 3
    assert torch.equal(found(trainer), Loop().train(until=3))
    assert trainer.balancer.steps == 3
    assert trainer.balancer.epoch == 0  # it was stopped within the first
    assert hooks(trainer) == 0


class Fails(transformers.TrainerCallback):
    def on_substep_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 2:
            raise KeyboardInterrupt


def test_no_hook_is_left_after_an_error(tmp_path: Path) -> None:
    trainer = trainer_for(tmp_path, callbacks=[Fails()])
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert hooks(trainer) == 0
    assert not {"backward", "unscale_gradients"} & vars(trainer.accelerator).keys()


def test_trained_again_with_a_balancer_made_anew(tmp_path: Path) -> None:
    trainer = trainer_for(tmp_path, arguments={"max_steps": 4})
    trainer.train()
    first = trainer.balancer
    trainer.train()  # by now the Trainer's optimizer is wrapped by Accelerate
    assert trainer.balancer is not first
    assert trainer.balancer.steps == 4
    assert trainer.balancer.optimizers == [trainer.model.world.optimizer]
    assert hooks(trainer) == 0


# ---------------------------------------------------------------------- precision, compilation


def test_under_a_gradient_scaler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scaled by a power of two, and in double precision, which autocast leaves as it is."""
    trainer = trainer_for(tmp_path, ogm_ge)
    accelerator = trainer.accelerator
    accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    accelerator.native_amp = True
    monkeypatch.setitem(accelerator.state._shared_state, "_mixed_precision", "fp16")
    trainer.train()
    assert torch.equal(found(trainer), Loop(ogm_ge).train())
    assert trainer.balancer.steps == STEPS


def test_compiled_by_the_trainer(tmp_path: Path) -> None:
    compiled = {"torch_compile": True, "torch_compile_backend": "eager"}
    trainer = trainer_for(tmp_path, ogm_ge, arguments=compiled)
    with pytest.raises(eq.MatchError, match=r"does not show in a compiled forward.*features="):
        trainer.train()  # nothing has run before that shows the graph


def test_a_model_compiled_before_is_refused(tmp_path: Path) -> None:
    model = Model()
    model.net.compile(backend="eager")
    with pytest.raises(eq.SetupError, match=r"already compiled.*attach the balancer first"):
        trainer_for(tmp_path, model=model).train()


# ---------------------------------------------------------------------- evaluation


class OwnRule(eq.OGM):
    """Predicts from the audio alone."""

    name = "own-rule"

    def predict(self, step: eq.Step) -> Tensor:
        return step.unimodal["audio"]


def test_evaluated_by_the_method_s_own_rule(tmp_path: Path) -> None:
    trainer = trainer_for(
        tmp_path,
        OwnRule,
        arguments={"eval_strategy": "epoch", "max_steps": 5},
        compute_metrics=lambda of: {"mean": float(of.predictions.mean())},
    )
    trainer.train()
    samples, net = Samples().columns, trainer.model.net
    with torch.no_grad():
        feature = net.encoders["audio"](samples["audio"])
        expected = feature @ net.head.weight[:, :8].T + net.head.bias / 2
    for metrics in (trainer.state.log_history[-2], trainer.evaluate()):  # within train, and after
        assert metrics["eval_mean"] == pytest.approx(float(expected.mean()), rel=1e-9)
        loss = F.cross_entropy(expected, samples["labels"])
        assert metrics["eval_loss"] == pytest.approx(float(loss), rel=1e-6)
    predictions = trainer.predict(Samples()).predictions
    torch.testing.assert_close(torch.from_numpy(predictions), expected)
    assert hooks(trainer) == 0


def test_evaluated_as_the_trainer_does_before_and_after_training(tmp_path: Path) -> None:
    plain = trainer_for(tmp_path, of=transformers.Trainer, arguments={"max_steps": 4})
    joint = trainer_for(tmp_path, eq.Joint, arguments={"max_steps": 4})
    for _ in range(2):
        expected, metrics = plain.evaluate(), joint.evaluate()
        assert metrics["eval_loss"] == pytest.approx(expected["eval_loss"], rel=1e-9)
        plain.train()
        joint.train()


# ---------------------------------------------------------------------- refusals


def test_a_loss_other_than_the_model_s_is_said(tmp_path: Path) -> None:
    def doubled(logits: Tensor, target: Tensor) -> Tensor:
        return 2 * F.cross_entropy(logits, target, reduction="none")

    made = balance(always, criterion=doubled)
    trainer = trainer_for(tmp_path, balance=made, arguments={"max_steps": 2})
    with pytest.warns(eq.BalanceWarning, match=r"the model returns a loss of .*criterion=") as said:
        trainer.train()
    assert len(said) == 1


class Resamples(eq.Method):
    name = "resamples"

    def order(self, samples: int, epoch: int) -> eq.Order | None:
        return None


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"compute_loss_func": F.cross_entropy}, r"compute_loss_func.*criterion="),
        ({"arguments": {"optim": "galore_adamw_layerwise"}}, "within the backward pass"),
        ({"make": Resamples}, r"which samples.*balancer\.batches"),
        ({"balance": lambda model, optimizer: 5}, "returns a Balancer, found int"),
        ({"arguments": {"label_names": ["class"]}}, r"expected labels \['class'\].*label_names="),
    ],
)
def test_what_cannot_work_is_refused(tmp_path: Path, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(eq.SetupError, match=words):
        trainer_for(tmp_path, **settings).train()


def test_label_smoothing_is_refused(tmp_path: Path) -> None:
    model = Model()
    model.config = transformers.PretrainedConfig()
    with pytest.raises(eq.SetupError, match="label_smoothing_factor is not applied"):
        trainer_for(tmp_path, model=model, arguments={"label_smoothing_factor": 0.1})


def test_the_best_model_without_its_balancer_is_said(tmp_path: Path) -> None:
    arguments = {
        "eval_strategy": "steps",
        "save_strategy": "steps",
        "eval_steps": 2,
        "save_steps": 2,
        "max_steps": 4,
        "load_best_model_at_end": True,
        "save_only_model": True,
    }
    with pytest.warns(eq.BalanceWarning, match=r"holds no balancer\.pt"):
        trainer_for(tmp_path, arguments=arguments).train()


def test_without_transformers_the_pip_line_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "equimodal.integrations.transformers")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        ImportError, match=r"transformers, accelerate: pip install 'equimodal\[hf\]'"
    ):
        importlib.import_module("equimodal.integrations.transformers")


class Theirs(transformers.Trainer):
    """Another Trainer, with a step of its own."""

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        self.passed = getattr(self, "passed", 0) + 1
        return super().training_step(*args, **kwargs)


class BalancedTheirs(BalancedTrainer, Theirs):
    pass


def test_named_first_it_balances_another_trainer(tmp_path: Path) -> None:
    trainer = trainer_for(tmp_path, of=BalancedTheirs)
    trainer.train()
    assert trainer.passed == STEPS * ACCUMULATE
    assert torch.equal(found(trainer), Loop().train())


class OwnLoss(transformers.Trainer):
    """A Trainer that computes a loss of its own."""

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        return 2 * super().compute_loss(*args, **kwargs)


class BalancedOwnLoss(BalancedTrainer, OwnLoss):
    pass


class Stated(BalancedTrainer, OwnLoss):
    replaces_loss = True


def test_a_trainer_with_a_loss_of_its_own_is_refused_unless_it_is_said(tmp_path: Path) -> None:
    with pytest.raises(
        eq.SetupError,
        match=r"OwnLoss\.compute_loss is a loss of its own, which would not be trained on"
        r".*replaces_loss = True in class BalancedOwnLoss",
    ):
        trainer_for(tmp_path, of=BalancedOwnLoss)
    trainer = trainer_for(tmp_path, of=Stated)
    trainer.train()
    assert torch.equal(found(trainer), Loop().train())


def test_a_refused_run_leaves_no_hook(tmp_path: Path) -> None:
    trainer = trainer_for(tmp_path, Resamples)
    with pytest.raises(eq.SetupError):
        trainer.train()
    assert hooks(trainer) == 0


# ---------------------------------------------------------------------- the examples


def test_the_examples_run_and_differ_in_five_lines() -> None:
    assert changed_lines(*EXAMPLES) <= 5
    plain, balanced = run(*EXAMPLES)
    assert "eval_accuracy" in plain
    assert "balance/" not in plain
    assert "balance/coefficient/gyroscope" in balanced


def test_the_page_shows_how_the_examples_differ() -> None:
    assert_page_shows_diff(ROOT / "docs" / "trainers" / "transformers.md", *EXAMPLES)
