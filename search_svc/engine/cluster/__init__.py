"""Engine `ray`: the shards of an index version on the nodes of a Ray cluster.

A front end asks `replicas`, which are actors that hold one shard each. A `keeper`, one actor for all front ends of a cluster, has
them placed, watched and ended. `connection`, `keeper` and `racing` are
all that call Ray.
"""
