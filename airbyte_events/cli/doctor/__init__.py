"""``doctor``: finds faults and their remedies."""
