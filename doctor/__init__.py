"""`vmmr doctor`: what of an installation is well, what is not, and what to do about it."""
