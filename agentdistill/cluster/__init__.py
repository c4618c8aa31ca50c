"""The roles in several processes (see docs/scale.md).

The student trained by ranks, each with a shard of its weights; and every role as actors of a Ray cluster, behind the
interfaces that they have in one process. Requests carry their whole context and seed, and sequences to score all of their
ids. So an actor that is lost loses nothing: what it was asked is asked again of its successor, which has the newest weights.
"""
