"""ScienceWorld's simulator, in a Java process."""

from __future__ import annotations

from agentdistill.envs import java

SIMULATOR = java.Simulator("ScienceWorld", "scienceworld", "scienceworld", "scienceworld.runtime.pythonapi.PythonInterface")


class Java(java.Java):
    """A Java process with ScienceWorld in it (see `envs.java.Java`)."""

    def __init__(self) -> None:
        super().__init__(SIMULATOR)
