"""ScienceWorld: 30 experiments of elementary-school science in text, played by the real simulator in a Java process."""

from agentdistill.envs.scienceworld.env import ScienceWorldEnv

__all__ = ["ScienceWorldEnv"]
