"""How the executions are divided. Imports nothing, since what is fuzzed must be imported with its coverage counted."""

WEIGHTS = {
    "photo": 120,
    "crop": 80,
    "message": 40,
    "csv": 300,
    "calibration": 300,
    "model.json": 80,
    "index manifest": 15,
    "embeddings manifest": 60,
    "index": 2,
    "journal": 3,
}
"""In thousands of a million. An input of the index or the journal opens a whole gallery, and asks it everything."""
