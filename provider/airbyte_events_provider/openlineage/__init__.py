"""OpenLineage: the tables that a sync reads and writes."""
