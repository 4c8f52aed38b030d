"""The config: composed by Hydra, checked here without heavy imports, passed on as a frozen object."""

from alexnet_lab.config.validate import check_evaluate, check_export, check_report, check_saved, check_train

__all__ = ["check_evaluate", "check_export", "check_report", "check_saved", "check_train"]
