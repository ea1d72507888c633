"""Encoded photos, from anyone, to pixels: what both services read, `search_svc` when it compares photos with each other."""
