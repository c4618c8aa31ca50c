"""Trajectories in and out: conversations from other programs' logs, and stored episodes for other programs to read.

One format a file, by name in `registry`. What is read becomes a `Conversation`, which `Encoder` tokenises once; what is written
comes from a `Source`, some trajectories in memory at a time.
"""

from agentdistill.exchange.conversation import BadRecord, Called, Conversation, Said
from agentdistill.exchange.registry import Format, formats, register

__all__ = ["BadRecord", "Called", "Conversation", "Format", "Said", "formats", "register"]
