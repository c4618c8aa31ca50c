"""Depth schedules and step weights. Importing the package registers them all; a new file needs a line here."""

from agentdistill.curricula import adaptive, after_error, sod, tcod
from agentdistill.curricula.schedule import SCHEDULES, Cut, Schedule, load

__all__ = ["SCHEDULES", "Cut", "Schedule", "adaptive", "after_error", "load", "sod", "tcod"]
