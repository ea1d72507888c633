"""`vmmr-web`: the page for people, and plain HTTP with JSON for programs. A client of both services, nothing more."""
