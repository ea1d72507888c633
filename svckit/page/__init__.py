"""What our pages of HTML have in common: a head, colours, tables, plots. Of the extras `report` and `loadtest`."""
