"""What our pages of HTML have in common: a head, colours, tables, plots. Needs the extra `report` or `loadtest`."""
