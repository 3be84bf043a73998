"""What the tables of the paper measure, as functions of arrays."""
