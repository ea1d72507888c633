"""When two photos are taken for copies of each other: the one rule of the command and of the page."""

NEARLY_THE_SAME = 0.95
"""The similarity from which on two photos are taken for copies: the same photo again, in another size or saved anew. Photos of one car
taken side by side stay below it."""
