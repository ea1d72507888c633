"""The report of `vmmr-search evaluate`: its figures, and how they are shown in a terminal and on a page."""
