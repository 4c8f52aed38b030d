"""A LightningModule of one's own in place of `Classifier`: trained, resumed, evaluated, or refused in one line."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
from commands import QUICK, REPOSITORY, call
from torch import nn

from alexnet_lab import load
from alexnet_lab.base.errors import RunError
from alexnet_lab.config import check_evaluate, check_train
from alexnet_lab.evaluation.evaluate import evaluate
from alexnet_lab.run import train
from alexnet_lab.training import Classifier
from alexnet_lab.training.logged_sums import _joined
from alexnet_lab.training.step_seeds import StepSeeds

if TYPE_CHECKING:
    from pathlib import Path

PLAIN = REPOSITORY / "tests" / "plain_module.py"

OWN = (
    PLAIN.read_text()
    + """
from alexnet_lab.training import Classifier


class Smooth(Classifier):
    def __init__(self, *, amount: float = 0.1, **fields):
        super().__init__(**fields)
        self.amount = amount

    def training_step(self, batch, batch_index):
        images, labels = batch[:2]
        return super().training_step(batch, batch_index) + self.amount * self(images).square().mean()


class Same(Classifier):
    pass


class Silent(Plain):
    def step(self, batch, stage):
        logits = self(batch[0])
        return F.cross_entropy(logits, batch[1]), logits

    def validation_step(self, batch, batch_idx):
        pass

    def test_step(self, batch, batch_idx):
        return self.step(batch, "test")[0]


class Late(Silent):
    def on_train_epoch_end(self):
        self.log("train/loss", float(self.current_epoch))


class Reduced(Plain):
    def __init__(self, num_classes, width=16, rate=0.05):
        super().__init__(num_classes, width, rate)
        self.register_buffer("average", torch.zeros(width, 49))

    def training_step(self, batch, batch_idx):
        loss, logits = self.step(batch, "train")
        for name in ("sum", "min", "max"):
            self.log(f"train/{name}", loss, on_step=False, on_epoch=True, reduce_fx=name)
        self.log("train/mean", loss, on_step=False, on_epoch=True, batch_size=1)
        if batch_idx == 4:
            self.log("train/late", loss, on_step=False, on_epoch=True)
        if batch_idx == 0:
            self.log("train/first", loss, on_step=False, on_epoch=True)
        return loss

    def on_train_epoch_start(self):
        self.log("train/start", float(self.current_epoch + 3))

    def on_train_batch_end(self, outputs, batch, batch_idx):
        weight = self.net[1].weight.detach()
        self.average.mul_(0.9).add_(weight, alpha=0.1)
        self.log("train/weight", weight.norm(), on_step=False, on_epoch=True)


class Untested(LightningModule):
    def __init__(self, net, optimizer):
        super().__init__()
        self.net, self.spec = net, optimizer

    def forward(self, images):
        return self.net(images)

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self):
        from alexnet_lab.training.optimizers import build_optimizer

        return build_optimizer(self.spec, self.net)


class Keeps(Untested):
    def __init__(self, net, optimizer):
        super().__init__(net, optimizer)
        self.save_hyperparameters({"kept": range(3)})


class Empty(LightningModule):
    def __init__(self):
        super().__init__()


class Fails(Empty):
    def __init__(self):
        raise KeyError("x")
"""
)

SHORT = (*QUICK, "data.batch_size=64", "launcher=in_process")
TRUST = "trusted_packages=[own_modules]"

BATCHES = 21
"""Of an epoch, as `SHORT` has them."""


@pytest.fixture(autouse=True)
def own_modules(tmp_path: Path, digits_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_modules.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("ALEXNET_LAB_DATA", str(digits_dir))
    monkeypatch.chdir(tmp_path)


def run(folder: str, name: str, *words: str) -> dict[str, Any]:
    outcome = call(train, "train", *SHORT, f"run_dir={folder}", f"module._target_=own_modules.{name}", *words)
    assert outcome.code == 0, outcome.err
    return result(folder) | {"log": outcome.err}


def result(folder: str) -> dict[str, Any]:
    from pathlib import Path

    return json.loads(Path(folder, "result.json").read_text())


def weights(folder: str) -> dict[str, torch.Tensor]:
    return torch.load(f"{folder}/checkpoints/last.ckpt", weights_only=True)["state_dict"]


@pytest.mark.parametrize(("name", "field"), [("Smooth", "+module.amount=0.5"), ("Plain", "+module.width=8")])
def test_it_is_trained_resumed_and_evaluated(name, field):
    words = (field, "schedule=constant") if name == "Smooth" else (field,)
    run("whole", name, *words, "trainer.max_epochs=3")
    run("part", name, *words, "trainer.max_epochs=2")
    outcome = call(train, "train", "resume=part", "trainer.max_epochs=3", TRUST)
    assert outcome.code == 0, outcome.err
    whole, part = weights("whole"), weights("part")
    assert whole.keys() == part.keys()
    assert all(torch.equal(whole[key], part[key]) for key in whole)
    metrics = result("whole")["metrics"]
    assert metrics == result("part")["metrics"]
    with open("whole/metrics.csv") as file:  # noqa: PTH123
        rows = list(csv.DictReader(file))
    assert [float(row["val/top1_error"]) for row in rows][-1] <= 0.8
    assert {"train/loss", "val/loss", "val/top1_error"} <= rows[0].keys()
    outcome = call(lambda raw: evaluate(check_evaluate(raw)), "eval", "run=whole", TRUST)
    assert outcome.code == 0, outcome.err
    with open("whole/eval/test_center.json") as file:  # noqa: PTH123
        evaluated = json.load(file)["metrics"]
    tested = {key: value for key, value in metrics.items() if key.startswith("test/")}
    assert len(tested) >= 2
    assert {key: evaluated[key] for key in tested} == tested
    finished = load("whole", trusted_packages=["own_modules"])
    assert type(finished.classifier).__name__ == name
    images = torch.zeros(2, 1, finished.data.stored_size, finished.data.stored_size)
    assert finished.predict(images).shape == (2, 10)


def test_a_resume_within_an_epoch_logs_the_whole_epoch(monkeypatch):
    words = ("trainer.max_epochs=3", "callbacks.checkpoint.every_steps=1")
    run("whole", "Reduced", *words)

    def interrupt(_: Any, trainer: Any, *arguments: Any) -> None:
        if (trainer.current_epoch, arguments[-1]) == (1, 3):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(StepSeeds, "on_train_batch_start", interrupt)
        words = ("run_dir=part", "module._target_=own_modules.Reduced", *words)
        assert call(train, "train", *SHORT, *words).code == 130
    outcome = call(train, "train", "resume=part", TRUST)
    assert outcome.code == 0, outcome.err
    whole, part = (table(folder) for folder in ("whole", "part"))
    assert whole == part
    assert all(torch.equal(weights("part")[name], value) for name, value in weights("whole").items())
    assert (whole[1]["train/start"], float(whole[1]["train/first"]) > 0) == ("4.0", True)
    assert {"train/sum", "train/min", "train/max", "train/late"} <= whole[1].keys()
    assert float(whole[1]["train/min"]) < float(whole[1]["train/loss"]) < float(whole[1]["train/max"])


def test_an_epoch_that_max_steps_ended_adds_nothing_to_the_next():
    run("part", "Reduced", "trainer.max_steps=3", "trainer.max_epochs=1")
    outcome = call(train, "train", "resume=part", "trainer.max_steps=-1", "trainer.max_epochs=2", TRUST)
    assert outcome.code == 0, outcome.err
    assert [row["step"] for row in table("part")] == ["3", str(3 + BATCHES)]
    second = table("part")[1]
    assert float(second["train/sum"]) == pytest.approx(BATCHES * float(second["train/mean"]), rel=1e-5)
    assert second["train/start"] == "4.0"


def test_another_number_of_processes_logs_the_whole_epoch():
    """Sums, maxima and minima of two former processes; a name that is logged once an epoch stays."""

    def part(value: float, images: int, kind: str) -> dict[str, Any]:
        more = {"reduce_fx": kind, "sync_dist": True}
        return {"name": "x", "value": torch.tensor(value), "images": images, "more": more}

    every = [
        {"a": part(6.0, 3, "mean"), "b": part(1.0, 0, "max")},
        {"a": part(4.0, 1, "mean"), "b": part(2.0, 0, "max")},
    ]
    first, other = (_joined(every, is_first=is_first) for is_first in (True, False))
    assert (first["a"]["value"], first["a"]["images"], first["b"]["value"]) == (10.0, 4, 2.0)
    assert (other["a"]["value"], other["a"]["images"], other["b"]["value"]) == (0.0, 0, 2.0)


def table(folder: str) -> list[dict[str, str]]:
    """The rows of metrics.csv without times."""
    with open(f"{folder}/metrics.csv") as file:  # noqa: PTH123
        return [{name: value for name, value in row.items() if "second" not in name} for row in csv.DictReader(file)]


def test_its_numbers_are_those_of_its_own_network():
    found = run("run", "Plain", "+module.width=8", "trainer.max_epochs=1")
    assert found["num_parameters"] == 49 * 8 + 8 + 8 * 10 + 10
    assert "own_modules.Plain takes no model, optimizer, schedule, loss" in found["log"]


def test_a_subclass_without_changes_trains_like_the_classifier():
    run("own", "Same", "trainer.max_epochs=1")
    assert call(train, "train", *SHORT, "run_dir=ours", "trainer.max_epochs=1").code == 0
    own, ours = weights("own"), weights("ours")
    assert all(torch.equal(own[key], ours[key]) for key in ours)
    checkpoint = torch.load("own/checkpoints/best.ckpt", weights_only=True)
    assert checkpoint["hyper_parameters"]["model"]["_target_"] == "alexnet_lab.models.LeNet5"


@pytest.mark.filterwarnings("ignore:You passed in a `val_dataloader`")  # Lightning's own line
def test_early_stopping_reads_what_the_module_logs_at_the_end_of_an_epoch():
    words = ("callbacks=early_stopping", "callbacks.early_stopping.monitor=train/loss",
             "callbacks.early_stopping.patience_epochs=1", "trainer.limit_train_batches=1")  # fmt: skip
    assert run("run", "Late", *words, "trainer.max_epochs=4")["epochs"] == 2  # the loss rises with each


@pytest.mark.filterwarnings("ignore:You passed in a `val_dataloader`")  # Lightning's own line
def test_what_a_module_does_not_do_is_left_out_in_one_line():
    found = run("run", "Silent", "trainer.max_epochs=1", "callbacks.train_set=true")
    assert found["metrics"] == {}
    assert "Silent logs no val/top1_error, so best.ckpt is that of the last epoch" in found["log"]
    assert "callbacks.train_set is left out: Silent is no subclass of Classifier" in found["log"]
    assert found["log"].count("there is no confusion matrix: test_step of Silent returns no logits") == 1
    outcome = call(lambda raw: evaluate(check_evaluate(raw)), "eval", "run=run", TRUST)
    assert outcome.code == 2
    assert outcome.err.splitlines()[-1].startswith(
        "error: validation_step and test_step of Silent must return the logits (64, 10) for eval.py; they return "
    )
    found = run("untested", "Untested", "trainer.max_epochs=1", "optimizer.learning_rate=0.05")
    assert "Untested has no test_step: nothing is tested" in found["log"]


def test_a_resumed_run_without_another_validation_knows_what_its_module_has_logged(tmp_path):
    words = ("callbacks=early_stopping", "callbacks.early_stopping.patience_epochs=1",
             "callbacks.early_stopping.min_delta=100.0", "trainer.limit_train_batches=2")  # fmt: skip
    run("run", "Plain", *words, "trainer.max_epochs=4")
    (tmp_path / "run" / "result.json").unlink()
    outcome = call(train, "train", "resume=run", TRUST)
    assert (outcome.code, "logs no" in outcome.err) == (0, False), outcome.err


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        ("Smooth", ["module.amount=1.0"], "to pass it to own_modules.Smooth, type +module.amount=..."),
        ("Smooth", ["+module.amout=1.0"], "unknown key `module.amout`; did you mean `amount`?"),
        ("Smooth", ["+module.amount=much"], "`module.amount` is 'much' (str); allowed: number"),
        ("Plain", ["+module.width=x"], "`module.width` is 'x' (str); allowed: integer"),
        ("Plain", ["+module.num_classes=3"], "unknown key `module.num_classes`"),
        ("Nothing", [], "own_modules has no `Nothing`"),
        ("Empty", [], "`module`: own_modules.Empty has no forward, training_step, configure_optimizers"),
        ("Fails", [], "`module`: own_modules.Fails does not take these fields: KeyError: 'x'"),
        ("Keeps", [], "`module`: own_modules.Keeps saves kept (range) as a hyperparameter"),
        ("Plain", ["optimizer.learning_rate=0.5"], "`optimizer.learning_rate=0.5` has no effect: own_modules.Plain"),
        ("Plain", ["model=lenet5_1998"], "`model=lenet5_1998` has no effect: own_modules.Plain takes no `net`"),
        ("Plain", ["callbacks=to_error"], "`callbacks.to_error` reads what alexnet_lab.training.Classifier counts"),
        ("nn.Linear", [], "there is no module `own_modules.nn`"),
    ],
)  # fmt: skip
def test_what_cannot_run_is_refused_before_anything_is_written(name, words, message, tmp_path):
    outcome = call(train, "train", *SHORT, "run_dir=run", f"module._target_=own_modules.{name}", *words)
    assert (outcome.code, outcome.err.count("\n")) == (2, 1), outcome.err
    assert message in outcome.err
    assert not (tmp_path / "run").exists()


def test_a_run_directory_cannot_trust_itself():
    run("run", "Same", "trainer.max_epochs=1")
    outcome = call(train, "train", "resume=run", "trainer.max_epochs=2")
    assert (outcome.code, "if you trust own_modules, add 'trusted_packages=[own_modules]'" in outcome.err) == (2, True)
    outcome = call(train, "train", "resume=run", "trainer.max_epochs=2", TRUST, "module._target_=own_modules.Smooth")
    assert (outcome.code, "cannot become" in outcome.err) == (2, True), outcome.err


# The Classifier from Python

SGD = {"_target_": "alexnet_lab.training.optimizers.sgd", "learning_rate": 0.1}


def test_the_classifier_takes_a_network_or_its_description(tmp_path):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    classifier = Classifier(net, num_classes=10, optimizer=SGD)
    assert classifier.net is net
    path = tmp_path / "own.ckpt"
    torch.save({"state_dict": classifier.state_dict(), "hyper_parameters": dict(classifier.hparams)}, path)
    with pytest.raises(RunError, match=r"own.ckpt does not name its network; pass it: .*net="):
        Classifier.load_from_checkpoint(path)
    again = Classifier.load_from_checkpoint(path, net=nn.Sequential(nn.Flatten(), nn.Linear(64, 10)))
    assert torch.equal(again.state_dict()["net.1.weight"], net.state_dict()["1.weight"])
    described = Classifier({"_target_": "alexnet_lab.models.LeNet5"}, num_classes=10, optimizer=SGD)
    assert described.hparams["model"] == {"_target_": "alexnet_lab.models.LeNet5"}


def test_a_subclass_keeps_its_own_fields_in_checkpoints():
    import own_modules  # pyright: ignore[reportMissingImports] - written by the fixture

    run("run", "Smooth", "+module.amount=0.5", "trainer.max_epochs=1")
    again = own_modules.Smooth.load_from_checkpoint("run/checkpoints/best.ckpt")
    assert (again.amount, type(again)) == (0.5, own_modules.Smooth)


def test_check_train_fills_in_the_classifier():
    found: list[Any] = []
    assert call(lambda raw: found.append(check_train(raw).model_dump()), "train", "logger=csv").code == 0
    assert found[0]["module"] == {"_target_": "alexnet_lab.training.Classifier"}
    del found[0]["module"]
    assert check_train(found[0]).module == {"_target_": "alexnet_lab.training.Classifier"}
