"""`vmmr-search audit`: finds copies, wrong labels and pictures without cars in a collection of photos."""
