"""Schemas of the keys that no constructor defines: the top level, `trainer`, `callbacks`, and the other commands."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic import AfterValidator, BaseModel, ConfigDict

from alexnet_lab.base.ranges import ExtraMetric, NonNegativeInt, PositiveFloat, PositiveInt, matching

Limit = Annotated[int, Ge(0)] | Annotated[float, Ge(0), Le(1)]
"""A number of batches (int), or a share of all batches (float in [0, 1]); 0 means none."""

SomeBatches = Annotated[int, Ge(1)] | Annotated[float, Gt(0), Le(1)]
"""A `Limit` other than 0."""

Threads = Annotated[int, Ge(1), Le(1024)]
"""Of one process."""

Seed = Annotated[int, Ge(0), Lt(2**32)]


Duration = Annotated[
    str, matching(r"(?=.*[1-9])\d{1,6}(:\d\d){3}", "a duration as days:hours:minutes:seconds, such as '00:08:30:00'")
]
"""A duration above 0 in the format of Lightning's Timer."""


def _file_name(name: str) -> str:
    if "/" in name or "\\" in name or name.startswith(".") or not name.isprintable() or len(name.encode()) > 150:
        raise ValueError("a name without folders, such as my-name (printable, up to 150 bytes, no dot at its start)")
    return name


FileName = Annotated[str, AfterValidator(_file_name)]
"""A part of a file's name. It is no path, so nothing is written elsewhere or hidden."""


StrategyName = Annotated[str, matching(r"[^\W\d]\w*", "a strategy of Lightning's (ddp, fsdp)")]

Level = bool | int | float | str | None
"""A value of a swept key."""


class Section(BaseModel):
    """A group of keys: no other keys, no silent conversion, no NaN or infinity."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True, defer_build=True)


def section_in(annotation: Any) -> type[Section] | None:
    """The section in an annotation, alone or in a union; None if there is none."""
    kinds = (annotation, *get_args(annotation))
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Section)), None)


class Trainer(Section):
    """Length, hardware and number format of training; the names are those of `lightning.Trainer`.

    All other arguments of `lightning.Trainer` are allowed too, except `LAUNCHER_OWNS`. Its signature checks them.
    """

    model_config = ConfigDict(extra="allow")

    max_epochs: PositiveInt = 30
    max_steps: Literal[-1] | PositiveInt = -1
    min_epochs: PositiveInt | None = None
    min_steps: PositiveInt | None = None
    max_time: Duration | None = None
    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps"] = "auto"
    strategy: StrategyName | dict[str, Any] = "auto"
    devices: PositiveInt | Literal["auto"] = 1
    num_nodes: PositiveInt = 1
    precision: Literal["32-true", "bf16-mixed", "16-mixed", "bf16-true", "64-true"] = "32-true"
    float32: Literal["highest", "tf32"] = "highest"
    limit_train_batches: SomeBatches = 1.0
    limit_val_batches: Limit = 1.0
    limit_test_batches: Limit = 1.0
    fast_dev_run: bool = False
    overfit_batches: Limit = 0.0
    val_check_interval: SomeBatches = 1.0
    check_val_every_n_epoch: PositiveInt | None = 1
    num_sanity_val_steps: Literal[-1] | NonNegativeInt = 0
    accumulate_grad_batches: PositiveInt = 1
    gradient_clip_val: Annotated[float, Gt(0)] | None = None
    gradient_clip_algorithm: Literal["norm", "value"] = "norm"
    deterministic: bool | Literal["warn"] = True
    benchmark: bool | None = None
    inference_mode: bool = True
    detect_anomaly: bool = False
    profiler: Literal["simple", "advanced", "pytorch"] | dict[str, Any] | None = None
    log_every_n_steps: PositiveInt = 1
    progress_bar: bool = True
    channels_last: bool = True
    compile: bool = False
    num_threads: Threads | None = None


OUR_TRAINER_KEYS = ("float32", "progress_bar", "channels_last", "compile", "num_threads")
"""Keys of `trainer` that are not arguments of `lightning.Trainer`."""

LAUNCHER_OWNS = {
    "barebones": "it would leave out checkpoints and metrics, which every run needs",
    "callbacks": "name callbacks in the group `callbacks`: +callbacks.NAME._target_=...",
    "default_root_dir": "the run's files are in `run_dir`",
    "enable_checkpointing": "set `callbacks.checkpoint`",
    "enable_model_summary": "set `model_summary=true`",
    "enable_progress_bar": "set `trainer.progress_bar`",
    "limit_predict_batches": "a run trains and tests; `eval.py` predicts",
    "logger": "choose loggers in the group `logger`",
    "model_registry": "checkpoints stay in the run directory, which resume= needs",
    "plugins": "the launcher sets the environment and writes the checkpoints; set `trainer.precision` or `.strategy`",
    "reload_dataloaders_every_n_epochs": "seed and epoch determine the order of images, so one loader suffices",
    "sync_batchnorm": "batch normalisation always uses the whole global batch",
    "use_distributed_sampler": "the loader itself divides each batch among the processes",
}
"""Arguments of `lightning.Trainer` that no config sets, each with the reason or the key to set instead."""


class Checkpoint(Section):
    """Which checkpoints are kept: `best.ckpt` by `monitor`; `last.ckpt` after epochs and within them.

    The lowest error or loss is the best; a metric of `metrics` says itself whether higher is better. `keep` adds
    `epoch_N.ckpt`: for all epochs, or for the latest N.
    """

    monitor: Literal["val/loss", "val/top1_error", "val/top5_error"] | ExtraMetric | None = "val/top1_error"
    every_minutes: PositiveFloat | None = 30.0
    every_steps: PositiveInt | None = None
    every_epochs: PositiveInt = 1
    keep: PositiveInt | Literal["all"] | None = None


class Pruning(Section):
    """Ends a trial of a search that is worse than the median of the complete ones, after some trials and epochs."""

    startup_trials: NonNegativeInt = 5
    warmup_epochs: NonNegativeInt = 5


class Callbacks(Section):
    """Callbacks that observe training. Any other name contains a `_target_` with its fields, or null."""

    model_config = ConfigDict(extra="allow")

    checkpoint: Checkpoint = Checkpoint()
    early_stopping: dict[str, Any] | None = None
    to_error: dict[str, Any] | None = None
    to_loss: dict[str, Any] | None = None
    pruning: Pruning | None = None
    augmentation_preview: bool = True
    layer_statistics: bool = False
    train_set: bool = False


BUILT_IN = {
    "early_stopping": "alexnet_lab.training.early_stopping.EarlyStopping",
    "to_error": "alexnet_lab.training.time_to.TimeToError",
    "to_loss": "alexnet_lab.training.time_to.TimeToLoss",
}
"""The `_target_` of callbacks that need not state it."""


Metric = Literal[
    "test/top1_error", "test/top5_error", "test/loss", "val/top1_error", "val/top5_error", "val/loss",
    "train/top1_error", "train/top5_error", "train/loss",
    "train_set/top1_error", "train_set/top5_error", "train_set/loss", "gap/top1_error", "gap/loss",
    "train/early_loss", "train/final_loss", "train/final_top1_error",
    "to_error/epochs", "to_error/steps", "to_error/seconds", "to_loss/epochs", "to_loss/steps", "to_loss/seconds",
    "epochs", "images_per_second", "wall_seconds",
]  # fmt: skip
"""What a sweep may compare: a metric, or a number of result.json. `train/early_loss` is the mean of the first three
epochs, `final_` means the last epoch; other `train/` and `val/` metrics are those of the best checkpoint's epoch.
`gap/` is the validation metric minus `train_set/`, or minus `train/` if `callbacks.train_set` is off."""

EARLY_EPOCHS = 3
"""The number of epochs in `train/early_loss`."""


VariantName = Annotated[
    str, matching(r"[\w+][\w.+-]{0,59}", "a name of letters, digits and _ . + -, such as no_dropout")
]
"""The name of a level that sets its own keys; it becomes part of a folder's name and of a command."""


class Sweep(Section):
    """What a sweep compares, for its table and its report. A file of `configs/sweep` sets it, `-m` runs it.

    `variants` are levels that set any keys: `{base: {}, no_lrn: {model.norm: none}}`; each job has one `variant`.
    `paper_points` contains the paper's differences from the base, in points of the metric, by variant or level. `also`
    lists further metrics whose means the table shows. `differs` lists differences from the paper, one sentence each.
    """

    name: str | None = None
    factor: str | list[str] | None = None
    base: Level | list[Level] = None
    tuned: str | list[str] | None = None
    variants: dict[VariantName, dict[str, Any]] | None = None
    variant: VariantName | None = None
    paper_points: dict[str, float] | None = None
    also: list[Metric] = []
    metric: Metric = "test/top1_error"
    expects: Literal["higher", "lower"] | None = None
    claim: str | None = None
    paper: str | None = None
    differs: list[str] = []
    dry_run: bool = False
    extend: bool = False
    other_images: bool = False
    dir: str | None = None


class Launcher(Section):
    """How the processes of a run are started, and how many jobs of a sweep run at a time."""

    workers: Literal["auto"] | bool = "auto"
    retries: NonNegativeInt = 2
    jobs_side_by_side: Literal["auto"] | PositiveInt = 1
    jobs_per_gpu: PositiveInt = 1
    slurm: bool = False

    @property
    def side_by_side(self) -> int:
        """The number of jobs at a time: a sweep has replaced `auto` in its jobs, and a run alone is one."""
        return 1 if self.jobs_side_by_side == "auto" else self.jobs_side_by_side


class Train(Section):
    """The complete config of one run. A `dict` is a `_target_` with its fields, checked against its signature.

    `model_dump()` gives the plain dictionary of config.yaml and of checkpoints.
    """

    seed: Seed
    run_dir: str
    resume: str | None = None
    resume_force: bool = False
    trusted_packages: list[str] = []
    init_from: str | None = None
    init_hash: str | None = None
    freeze: list[str] = []
    model: dict[str, Any]
    module: dict[str, Any] = {"_target_": "alexnet_lab.training.Classifier"}
    data: dict[str, Any]
    augment: dict[str, Any] | None = None
    transforms: dict[str, Any] = {}
    loss: dict[str, Any]
    metrics: dict[str, Any] = {}
    optimizer: dict[str, Any]
    schedule: dict[str, Any] | None = None
    trainer: Trainer = Trainer()
    callbacks: Callbacks = Callbacks()
    logger: dict[str, Any] | None = None
    launcher: Launcher = Launcher()
    sweep: Sweep = Sweep()
    experiment: str | None = None
    model_summary: bool = False
    tags: list[str] = []
    overrides: list[str] = []

    @property
    def trusted(self) -> tuple[str, ...]:
        """`trusted_packages`, as the functions of `base.targets` take them."""
        return tuple(self.trusted_packages)

    def with_trainer(self, **changes: Any) -> Train:
        """The same config with other values in `trainer`."""
        return self.model_copy(update={"trainer": self.trainer.model_copy(update=changes)})


class Sweeper(Section):
    """The keys of `hydra.sweeper`; the sweeper plugin explains them."""

    params: dict[str, Any] = {}
    max_batch_size: PositiveInt | None = None
    trials: PositiveInt | None = None
    sampler: Literal["tpe", "random"] = "tpe"


class HydraLauncher(Section):
    """The numbers of `hydra.launcher`, for all launchers; Hydra checks its other keys."""

    model_config = ConfigDict(extra="allow")

    n_jobs: Literal[-1] | PositiveInt | None = None
    batch_size: Annotated[str, matching(r"auto|0*[1-9]\d*", "auto, or a whole number from 1")] | None = None
    timeout_min: PositiveInt | None = None
    cpus_per_task: PositiveInt | None = None
    tasks_per_node: PositiveInt | None = None
    nodes: PositiveInt | None = None
    array_parallelism: PositiveInt | None = None
    gpus_per_node: NonNegativeInt | None = None
    mem_gb: NonNegativeInt | None = None
    max_num_timeout: NonNegativeInt | None = None


class Hydra(Section):
    """The part of the node `hydra` that a sweep uses."""

    sweeper: Sweeper
    launcher: HydraLauncher


class Multirun(Section):
    """The part of the config that only `-m` reads."""

    hydra: Hydra
    sweep: Sweep


def listed(value: Any) -> list[Any]:
    """One value or several, as a list; empty for None."""
    return value if isinstance(value, list) else [] if value is None else [value]


class EvaluatedData(Section):
    """What eval.py may change in the run's data."""

    dir: str | None = None
    root: str | None = None
    skip_unreadable: bool = False


Figure = Literal[
    "confusion", "reliability", "mistakes", "top5", "kernels", "feature_maps", "retrieval", "codes", "activations",
    "augmentation", "training_error",
]  # fmt: skip
"""The figures of eval.py; `alexnet_lab.evaluation.figures.registry` draws them."""


class Evaluate(Section):
    """The config of eval.py."""

    run: str | Annotated[list[str], MinLen(1)]
    views: Literal["center", "ten", "nine"] = "center"
    split: Literal["test", "val", "train"] = "test"
    figures: Literal["all"] | Figure | list[Figure] = []
    name: FileName | None = None
    out: str | None = None
    other_images: bool = False
    data: EvaluatedData = EvaluatedData()
    trusted_packages: list[str] = []
    num_threads: Threads | None = None


class ExportedData(Section):
    """What export.py may change in the run's data."""

    dir: str | None = None


class Export(Section):
    """The config of export.py."""

    run: str
    format: Literal["onnx", "torch_export", "demo"] = "onnx"
    out: str | None = None
    overwrite: bool = False
    response_norm: Literal["operator", "convolution"] = "operator"
    other_images: bool = False
    data: ExportedData = ExportedData()
    trusted_packages: list[str] = []


class Report(Section):
    """The config of report.py."""

    sweep: str | None = None
    runs: str | Annotated[list[str], MinLen(1)] | None = None
    metric: str | None = None
    out: str | None = None
    readme: bool = False
    other_images: bool = False
    wandb: bool = False
    entity: str | None = None
    project: str | None = None
