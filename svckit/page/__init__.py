"""The common parts of vmmr's pages of HTML: a head, colours, tables, plots. Needs the extra `report` or `loadtest`."""
