"""`logger.log_model`: checkpoints as W&B artifacts, read back from the offline file and fetched from a stand-in."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
import wandb_file
from commands import QUICK, call, finished, forked, move_home
from wandb_service import serving

from alexnet_lab.config import check_evaluate
from alexnet_lab.run import model_artifacts, train

if TYPE_CHECKING:
    from pathlib import Path

SHORT = ("trainer.max_epochs=2", "trainer.limit_train_batches=3", "trainer.limit_val_batches=2")


@pytest.fixture(autouse=True)
def no_login(monkeypatch, tmp_path):
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_SERVICE"):
        monkeypatch.delenv(name, raising=False)
    move_home(monkeypatch, tmp_path / "home")
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "wandb-config"))


def logged(run: Path) -> list[wandb_file.Artifact]:
    """The artifacts of all offline parts of a run, in order; each file is where its entry says, and unchanged."""
    parts = [wandb_file.read_file(path) for path in sorted(run.glob("wandb/offline-run-*/*.wandb"))]
    assert {part.id for part in parts} == {(run / "wandb_id.txt").read_text().strip()}
    assert [part.exit_code for part in parts] == [0] * len(parts)
    found = [artifact for part in parts for artifact in part.artifacts if artifact.type == "model"]  # not of a table
    for artifact in found:
        for name, path in artifact.files.items():
            digest = hashlib.md5(path.read_bytes(), usedforsecurity=False).digest()
            assert base64.b64encode(digest).decode() == artifact.digests[name], name
    return found


def alias(artifact: wandb_file.Artifact) -> str:
    """Its alias beside `latest`, which W&B moves to the newest version."""
    (name,) = set(artifact.aliases) - {"latest"}
    return name


def test_best_is_a_run_directory(compose, tmp_path, capsys):
    run = tmp_path / "run"
    train(compose(f"run_dir={run}", *SHORT, "logger=wandb", "logger.log_model=best"))
    result = json.loads((run / "result.json").read_text())
    (artifact,) = logged(run)
    assert (artifact.name, artifact.type) == (f"model-{(run / 'wandb_id.txt').read_text().strip()}", "model")
    assert sorted(artifact.aliases) == ["best", "latest"]
    assert artifact.metadata == result
    names = {"config.yaml", "manifest.json", "metrics.csv", "result.json"}
    assert set(artifact.files) == names | {"checkpoints/best.ckpt", "checkpoints/best.safetensors"}
    for name, path in artifact.files.items():
        assert path.stat().st_ino == (run / name).stat().st_ino, f"{name} is a copy"
    shown = capsys.readouterr().err
    assert shown.count("wandb sync") == 1
    assert shown.count("W&B: no login, so offline") == 1
    assert all(str(part) in shown for part in run.glob("wandb/offline-run-*"))


def test_all_kept_checkpoints_and_what_was_logged_stays(compose, tmp_path):
    run = tmp_path / "run"
    words = ("callbacks.checkpoint.keep=all", "logger=wandb", "logger.log_model=all")
    train(compose(f"run_dir={run}", *SHORT, *words))
    first = logged(run)
    assert [alias(artifact) for artifact in first] == ["epoch_1", "epoch_2", "best", "last"]
    files = [f"checkpoints/{name}.ckpt" for name in ("epoch_1", "epoch_2", "last")]
    assert [list(first[index].files) for index in (0, 1, 3)] == [[name] for name in files]
    (run / "checkpoints" / "epoch_final.ckpt").write_bytes(b"the user's")
    train({"resume": str(run), "changes": {"trainer.max_epochs": 3}})
    assert [alias(artifact) for artifact in logged(run)] == [
        "epoch_1", "epoch_2", "best", "last", "epoch_1", "epoch_2", "epoch_3", "best", "last"
    ]  # fmt: skip


def test_none_without_it(compose, tmp_path):
    run = tmp_path / "run"
    train(compose(f"run_dir={run}", "debug=fast", "logger=wandb"))
    assert logged(run) == []
    assert len(list(run.glob("wandb/offline-run-*"))) == 1


def test_a_failure_leaves_the_run_completed(compose, tmp_path, monkeypatch, capsys):
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("W&B is broken")

    monkeypatch.setattr(model_artifacts, "_upload", broken)
    result = train(compose(f"run_dir={tmp_path / 'run'}", "debug=fast", "logger=wandb", "logger.log_model=all"))
    assert result["status"] == "completed"
    assert capsys.readouterr().err.count("W&B is dropped (RuntimeError: W&B is broken)") == 1


@pytest.fixture(scope="module")
def trained(compose, tmp_path_factory):
    """A finished run."""
    run = tmp_path_factory.mktemp("trained") / "run"
    train(compose(f"run_dir={run}", *SHORT))
    return run


def evaluated(address: str, cwd: Path, *words: str) -> Any:
    """`eval.py run=wandb:team/alexnet-lab/abc123` against a service; a process of its own, as W&B keeps its login."""
    words = ("run=wandb:team/alexnet-lab/abc123", *words)
    own = {"WANDB_CACHE_DIR": str(cwd / "cache"), "HOME": str(cwd)}
    return finished(forked("eval.py", *words, cwd=cwd, WANDB_BASE_URL=address, WANDB_API_KEY="a" * 40, **own))  # pyright: ignore[reportArgumentType] - all of them are variables


def test_eval_fetches_a_run(trained, tmp_path, digits_dir):
    files = {
        str(path.relative_to(trained)): path.read_bytes()
        for path in trained.rglob("*") if path.is_file() and path.suffix in (".json", ".yaml", ".csv", ".ckpt")
    } | {"train.py": b"raise SystemExit", "../../escaped": b"x", "wandb_id.txt": b"abc123"}  # fmt: skip
    with serving(files, "abc123") as (address, asked):
        outcome = evaluated(address, tmp_path, f"data.dir={digits_dir}")
    assert outcome.code == 0, outcome.err
    assert asked == ["team/alexnet-lab/model-abc123:best"]
    run = tmp_path / "logs" / "wandb" / "team" / "alexnet-lab" / "abc123"
    assert (run / "checkpoints" / "best.ckpt").read_bytes() == (trained / "checkpoints" / "best.ckpt").read_bytes()
    numbers = json.loads((run / "eval" / "test_center.json").read_text())
    result = json.loads((trained / "result.json").read_text())
    assert numbers["metrics"]["test/top1_error"] == pytest.approx(result["metrics"]["test/top1_error"])
    assert not (run / "train.py").exists()
    assert not list(tmp_path.rglob("escaped"))


def test_a_damaged_checkpoint_is_refused(trained, tmp_path, digits_dir):
    copy = shutil.copytree(trained, tmp_path / "copy")
    (copy / "checkpoints" / "best.ckpt").write_bytes(b"no checkpoint")
    names = ("config.yaml", "result.json", "checkpoints/best.ckpt")
    with serving({name: (copy / name).read_bytes() for name in names}, "abc123") as (address, _):
        outcome = evaluated(address, tmp_path, f"data.dir={digits_dir}")
    assert outcome.code == 1
    assert "best.ckpt" in outcome.err.splitlines()[-1]
    assert "Traceback" not in outcome.err


def test_a_run_without_checkpoint_is_reported_in_one_line(tmp_path):
    with serving({}, "another") as (address, _):
        outcome = evaluated(address, tmp_path)
    assert outcome.code == 1
    (line,) = [line for line in outcome.err.splitlines() if line.startswith("error: ")]
    assert line.startswith("error: wandb:team/alexnet-lab/abc123 cannot be fetched")
    assert "it needs a run trained with logger.log_model=best" in line


def test_without_login(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    from alexnet_lab.base.errors import RunError
    from alexnet_lab.evaluation import fetched

    with pytest.raises(RunError, match="needs a login to W&B: wandb login"):
        fetched.fetch("wandb:team/alexnet-lab/abc123")
    assert list(tmp_path.glob("logs/*")) == []


@pytest.mark.parametrize("name", ["wandb:", "wandb:run", "wandb:a/b", "wandb:a/b/c/d", "wandb:a/b/../c", "wandb:../b/c",
                                  "wandb:a/b/c d", "wandb:a/b:x/c", "wandb:/b/c"])  # fmt: skip
def test_a_wrong_reference_is_refused_first(name):
    outcome = call(check_evaluate, "eval", f"run='{name}'")
    assert outcome.code == 2
    (line,) = outcome.err.splitlines()
    assert name in line


def test_a_wrong_value_is_refused(compose):
    from alexnet_lab.base.errors import ConfigError

    with pytest.raises(ConfigError, match=r"`logger.log_model` is 'most' .* allowed: 'best' or 'all'"):
        compose("logger=wandb", "logger.log_model=most", *QUICK[2:])
