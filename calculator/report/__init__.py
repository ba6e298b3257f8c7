"""A plan as text, for people and for machines. The only place that rounds to GiB and MiB."""
