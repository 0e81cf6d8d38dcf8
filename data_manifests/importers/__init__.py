"""Official annotation files into the tables of a dataset: one file for each family of formats."""
