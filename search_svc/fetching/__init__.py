"""Data sets that others host, fetched and laid out as `vmmr-search split` reads them."""
