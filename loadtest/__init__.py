"""`vmmr-loadtest` measures how fast the services are, and how far they can be pushed. It needs the extra `loadtest`.

```
plan ─▶ prepare (what to send) ─▶ workers ─▶ generator x processes ─▶ recorder ─▶ measure ─▶ Result ─▶ table, JSON, page
          ▲ knee (which rate next) ◀───────────────────────────────────────────────┘
```
"""
