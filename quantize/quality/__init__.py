"""What quantizing cost: evaluation, verification, reports."""
