"""What a run takes: speed, bandwidth, peaks, receipts."""
