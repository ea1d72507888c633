"""HTTP with JSON, NDJSON and CSV, for programs: everything below `/v1`."""
