"""Who plays and who scores: this process, vLLM in a process of its own, or a server over HTTP.

An experiment names it in its `engine` section, and nothing else of it changes.
"""

from agentdistill.engines.registry import ENGINES, Engine, Engines, EngineSpec, Setup, open_engines, register
from agentdistill.engines.section import EngineSection

__all__ = ["ENGINES", "Engine", "EngineSection", "EngineSpec", "Engines", "Setup", "open_engines", "register"]
