"""TextWorld-Express (Jansen and Côté 2022, arXiv:2208.01174): eight fast text games with gold paths."""

from agentdistill.envs.textworld_express.env import TextWorldExpressEnv

__all__ = ["TextWorldExpressEnv"]
