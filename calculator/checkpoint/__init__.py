"""Read what a checkpoint's files say, on disk or on a hub: headers, names and stored formats."""
