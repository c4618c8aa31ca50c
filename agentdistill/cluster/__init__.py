"""The student trained by several processes, each with a shard of its weights (see docs/scale.md)."""
