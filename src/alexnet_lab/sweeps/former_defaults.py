"""Jobs recorded before some keys existed: a new key with its default does not change a job's identity.

The defaults of new keys keep the former behaviour, so a later version can continue a published sweep.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from alexnet_lab.base.errors import ConfigError
from alexnet_lab.base.flatten import flat, nested
from alexnet_lab.config import check_saved

if TYPE_CHECKING:
    from alexnet_lab.sweeps.definition import Definition, Job


def as_recorded(job: Job, there: Definition | None, config: Mapping[str, Any]) -> Job:
    """Leaves out keys that the recorded jobs of a sweep lack, if they have their defaults.

    Args:
        job: As requested now.
        there: The sweep in the directory; None for a new one.
        config: The job's whole config, checked.
    """
    known = {other.content for other in there.jobs} if there else set()
    if there is None or job.content in known:
        return job
    own = job.config.keys()
    shapes = dict.fromkeys(
        frozenset(other.config) for other in there.jobs if other.config and other.config.keys() < own
    )
    older = [
        replace(job, config={key: value for key, value in job.config.items() if key in keys})
        for keys in shapes
        if are_defaults(own - keys, config, config["trusted_packages"])
    ]
    return next((form for form in older if form.content in known), next(iter(older), job))


def are_defaults(keys: Collection[str], config: Mapping[str, Any], trusted_packages: Sequence[str] = ()) -> bool:
    """Whether a run's config would be the same without some keys.

    Args:
        keys: Dotted.
        config: Of a run, nested.
        trusted_packages: The packages whose `_target_`s may be read.
    """
    whole = flat(dict(config))
    kept = {key: value for key, value in whole.items() if key not in keys and not key.startswith("sweep.")}
    try:
        filled = flat(check_saved(nested(kept), trusted_packages))
    except ConfigError:
        return False
    return all(key in filled and repr(filled[key]) == repr(whole[key]) for key in keys)  # 1, 1.0 and true differ
