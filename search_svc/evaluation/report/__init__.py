"""The report of `vmmr-search evaluate`: what it says, from what was found to a page."""
