"""Resuming a run: from its own config, the allowed changes, and the newest intact checkpoint."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from alexnet_lab.base import shell
from alexnet_lab.base.errors import RunError
from alexnet_lab.base.fields import as_typed
from alexnet_lab.base.files import stamp
from alexnet_lab.base.flatten import changed, flat, within
from alexnet_lab.base.targets import OURS
from alexnet_lab.config import continuing
from alexnet_lab.config.schema import Train
from alexnet_lab.data.identity import OTHER_IMAGES, check_same_images, is_folded_in
from alexnet_lab.run import checkpoint_identity
from alexnet_lab.run.run_directory import RunDirectory
from alexnet_lab.training.checkpoint_io import ForeignCheckpointError, Intact, load_checkpoint

log = logging.getLogger(__name__)

OF_A_SWEEP = "ledger.jsonl"
"""The file that marks the directory of a sweep."""


class Before(NamedTuple):
    """The state of a run at the checkpoint that it resumes from."""

    seconds: float  # its time so far
    images: Mapping[str, Any]  # their record; see `alexnet_lab.data.identity`
    checkpoint: Intact  # the checkpoint to resume from


def begin(directory: RunDirectory, config: Train, *, mapped: bool = False) -> Before:
    """Checks that a run can be resumed with this config, and logs what changes; nothing is written.

    Args:
        directory: Of the run.
        config: Of the run from now on.
        mapped: Leave the tensors of the checkpoint in the file, because worker processes will read them.

    Returns:
        The state of the run at its checkpoint.

    Raises:
        RunError: There is nothing to resume, or the config is not that of the checkpoint.
    """
    found_there = newest_intact(directory, mapped=mapped, warn=True)
    checkpoint = found_there.content or {}
    saved = directory.read_config()
    asked = {item.key for item in continuing.differences(saved, config.model_dump())}
    if directory.is_continued_by(saved):  # by an earlier command
        asked |= set(continuing.LONGER)
    found = checkpoint_identity.check_same_config(
        checkpoint, config, directory.config, asked, forced=config.resume_force
    )
    longer = [item for item in found if item.kind == "longer"]
    result = directory.read_result() or {}
    if result.get("status") == "completed" and not longer:
        raise RunError(
            f"{directory.path} is a finished run; there is nothing to resume; "
            f"{_how_to_go_on(directory, config, checkpoint, result)}"
        )
    if longer:
        if _folds_in(longer):
            _check_epoch_is_over(directory, config, checkpoint, result, longer)
        _check_longer(directory, config, checkpoint, result)
        log.info("%s", _rule(checkpoint, longer))
        epochs = checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]
        if epochs["processed"] == epochs["ready"] and not _is_over(checkpoint):  # it was ended early
            epoch = checkpoint["epoch"] + 1
            log.warning(
                "the run had ended within epoch %d; its other images are left out, and epoch %d follows",
                epoch, epoch + 1,
            )  # fmt: skip
    checkpoint_identity.warn_of_other_code(checkpoint)
    checkpoint_identity.log_free(found)
    data = checkpoint.get(config.data["_target_"].rpartition(".")[2])  # the key that Lightning gives its state
    return Before(
        float(checkpoint.get(checkpoint_identity.SECONDS, 0.0)),
        data if isinstance(data, dict) else {},
        replace(found_there, content=None) if mapped else found_there,
    )


def check_images(directory: RunDirectory, before: Before, images: Mapping[str, Any], config: Train) -> None:
    """Refuses to resume on other images before anything is written; a finished run stays finished.

    With `resume_force` the run continues, and the data module warns when it restores its state.

    Args:
        directory: Of the run.
        before: See `begin`.
        images: The record of the present images.
        config: Of the run from now on.

    Raises:
        DataError: The images are not those of the checkpoint.
    """
    if not config.resume_force and not is_folded_in(before.images, images):
        what = f"the images of the data set are not those that run {directory.path} was trained on"
        check_same_images(before.images, images, what, switch="resume_force", allowed=False)


def _check_longer(
    directory: RunDirectory, config: Train, checkpoint: Mapping[str, Any], result: Mapping[str, Any]
) -> None:
    """Refuses to extend a run that cannot be extended, or that a sweep compares with runs of its length."""
    if (directory.path.absolute().parent / OF_A_SWEEP).exists():
        raise RunError(
            f"{directory.path} is a job of a sweep, whose table compares runs of one length; "
            f"copy the directory to another place (cp -r), and resume the copy"
        )
    if is_stopped(checkpoint, config):
        words = _typed(_without_stops(config))
        remedy = f"add {' '.join(words)}" if words else "start a new run without it"
        raise RunError(f"{directory.path} was ended by a callback, so more epochs would not train it further; {remedy}")
    schedule = (config.schedule or {"_target_": OURS})["_target_"]
    if not schedule.startswith(OURS) and not schedule.rpartition(".")[2][:1].isupper():  # a function gets the length
        raise RunError(f"how {schedule} continues in a longer run is unknown; start a new run of that length")
    trainer, done = config.trainer, {"max_epochs": result.get("epochs", 0), "max_steps": result.get("steps", 0)}
    for key, count in done.items():
        limit = getattr(trainer, key)
        if -1 < limit <= count:
            raise RunError(f"`trainer.{key}` is {limit}, which the run has done; set it to more than {count}")


def _how_to_go_on(
    directory: RunDirectory, config: Train, checkpoint: Mapping[str, Any], result: Mapping[str, Any]
) -> str:
    """The command that trains a finished run for twice as many epochs, or the reason why there is none."""
    changes: dict[str, Any] = {"trainer.max_epochs": 2 * config.trainer.max_epochs}
    if -1 < config.trainer.max_steps <= result.get("steps", 0):
        changes["trainer.max_steps"] = -1
    if is_stopped(checkpoint, config):
        changes |= _without_stops(config)
    longer = Train.model_validate(changed(config.model_dump(), changes))
    try:
        _check_longer(directory, longer, checkpoint, result)
    except RunError as error:
        return str(error)
    return f"to train it further: {resume_command(directory, config, *_typed(changes))}"


def _typed(changes: Mapping[str, Any]) -> list[str]:
    """The words of a command line for values by dotted key."""
    return [f"{key}={as_typed(value)}" for key, value in changes.items()]


def _without_stops(config: Train) -> dict[str, Any]:
    """The keys that switch off whatever may have ended the training, with their values."""
    on = [name for name, value in flat(config.model_dump()).items() if value not in (None, False)]
    return {key: value for key, value in STOPS.items() if any(within(name, (key,)) for name in on)}


def resume_command(directory: RunDirectory, config: Train, *more: str) -> str:
    """The command that resumes a run. It repeats `trusted_packages`, which the run itself cannot grant."""
    words = [shell.override("resume", directory.path), *more]
    if config.resume_force:
        words.append("resume_force=true")
    if config.trusted_packages:
        words.append(f"trusted_packages=[{','.join(config.trusted_packages)}]")
    return shell.command("train.py", *words)


def _folds_in(found: Iterable[continuing.Difference]) -> bool:
    """Whether the validation images become training images."""
    return any(item.key == continuing.FOLD_IN and item.kind == "longer" for item in found)


def _check_epoch_is_over(
    directory: RunDirectory,
    config: Train,
    checkpoint: Mapping[str, Any],
    result: Mapping[str, Any],
    longer: Iterable[continuing.Difference],
) -> None:
    """Refuses to change the number of steps per epoch within an epoch."""
    if not _is_over(checkpoint):
        remedy = f"finish the run first: {resume_command(directory, config)}"
        if result.get("status") == "completed":
            as_it_was = Train.model_validate(changed(config.model_dump(), {item.key: item.old for item in longer}))
            remedy = _how_to_go_on(directory, as_it_was, checkpoint, result)
        raise RunError(
            f"`{continuing.FOLD_IN}` can only become 0 between epochs, and the last checkpoint of {directory.path} is "
            f"within one ({place_of(checkpoint)}); {remedy}"
        )


def _is_over(checkpoint: Mapping[str, Any]) -> bool:
    """Whether a checkpoint was written after the last batch of an epoch."""
    return checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]["is_last_batch"]


def _at_next_epoch(loops: Mapping[str, Any]) -> dict[str, Any]:
    """Converts the state of Lightning's loops at the end of an epoch to that at the start of the next one.

    Lightning detects the end of an epoch by its number of batches, which differs in the next epoch.
    """
    state = copy.deepcopy(dict(loops))
    fit = state["fit_loop"]
    for counts in (fit["epoch_progress"]["total"], fit["epoch_progress"]["current"]):
        counts["completed"] = counts["processed"]
    batches = fit["epoch_loop.batch_progress"]
    batches["current"] = dict.fromkeys(batches["current"], 0)
    batches["is_last_batch"] = False
    return state


STOPS = {
    "callbacks.early_stopping": None,
    "callbacks.to_error.stop": False,
    "callbacks.to_loss.stop": False,
    "callbacks.pruning": None,
    "trainer.max_time": None,
}
"""Keys of callbacks that end training, with the values that switch them off."""


def is_stopped(checkpoint: Mapping[str, Any], config: Train) -> bool:
    """Whether a callback had ended the training, and none of them has been switched off since."""
    now = config.model_dump()
    trained = checkpoint.get(checkpoint_identity.KEY, now)
    released = any(item.key in STOPS for item in continuing.differences(trained, now))
    state = checkpoint.get("callbacks", {}).get("Checkpoints", {})
    return bool(state.get("stopped")) and not released


def _rule(checkpoint: Mapping[str, Any], longer: list[continuing.Difference]) -> str:
    """What an extended run does, in one line."""
    changes = ", ".join(map(str, longer))
    joined = "the validation images are trained on too, the last epoch is the result, and " if _folds_in(longer) else ""
    step = checkpoint.get("global_step", 0) + 1
    return (
        f"training continues ({changes}): from step {step:,} on the learning rate is that of a run of the new length; "
        f"{joined}the test set is used once more at the end"
    )


def prepared(
    directory: RunDirectory, config: Train, callbacks: Iterable[str], known: Intact | None = None
) -> tuple[Path, dict[str, Any]]:
    """The checkpoint that Lightning resumes from, adapted to this config.

    Args:
        directory: Of the run.
        config: Of the run from now on.
        callbacks: The state keys of its callbacks; other states are dropped.
        known: The checkpoint, if already found; None searches for it.
    """
    checkpoint = known and known.load()
    if known is None or checkpoint is None:
        known = newest_intact(directory)
        checkpoint = known.load() or {}
    path = known.path
    now = config.model_dump()
    folds_in = _folds_in(continuing.differences(checkpoint.get(checkpoint_identity.KEY, now), now))
    states = {key: state for key, state in checkpoint["callbacks"].items() if key in set(callbacks)}
    if "Checkpoints" in states:
        states["Checkpoints"] = states["Checkpoints"] | {"stopped": is_stopped(checkpoint, config)}
        if folds_in:  # there is no validation from now on, so the last epoch is the best
            states["Checkpoints"] |= {"best_score": math.inf}
    images = config.data["_target_"].rpartition(".")[2]  # the key that Lightning gives the data module's state
    known_images = checkpoint.get(images)
    data = {images: known_images | {OTHER_IMAGES: config.resume_force}} if isinstance(known_images, dict) else {}
    loops = {"loops": _at_next_epoch(checkpoint["loops"])} if folds_in else {}
    return path, checkpoint | {"callbacks": states} | data | loops


def newest_intact(directory: RunDirectory, *, mapped: bool = False, warn: bool = False) -> Intact:
    """The newest intact checkpoint of a run, with its content.

    Args:
        directory: Of the run.
        mapped: See `load_checkpoint`.
        warn: Warn if it is not the last one.

    Raises:
        RunError: There is none, or one would run code.
    """
    there = [path for path in (directory.last, directory.previous, directory.best) if path.exists()]
    damaged: list[RunError] = []
    for path in there:
        try:
            then = stamp(path.stat())
            checkpoint = load_checkpoint(path, mapped=mapped)
            _check_content(checkpoint, path)
        except ForeignCheckpointError:
            raise  # nothing in such a run can be trusted
        except RunError as error:
            damaged.append(error)
            continue
        if warn and path != directory.last:
            reason = damaged[0] if damaged else f"there is no {directory.last}"
            log.warning("%s; resuming from %s, of %s", reason, path.name, place_of(checkpoint))
        return Intact(path, then, checkpoint)
    if damaged:
        raise damaged[0]
    raise RunError(
        f"{directory.path} has no checkpoint to resume from; start it again with its config.yaml (trainer.fast_dev_run "
        "keeps none)"
    )


LIGHTNINGS = ("state_dict", "optimizer_states", "loops", "callbacks")
"""Keys of each of Lightning's checkpoints without which training cannot go on."""


def _check_content(checkpoint: Any, path: Path) -> None:
    """Raises RunError for what torch can load but no run has written, such as bare weights."""
    missing = [key for key in LIGHTNINGS if not isinstance(checkpoint, dict) or key not in checkpoint]
    if missing:
        raise RunError(f"{path} is no checkpoint of a run: it has no {missing[0]}")


def place_of(checkpoint: Mapping[str, Any]) -> str:
    """The place of a checkpoint in a run: "epoch 3, step 120"."""
    return f"epoch {checkpoint.get('epoch', 0) + 1}, step {checkpoint.get('global_step', 0)}"
