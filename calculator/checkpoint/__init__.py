"""What a checkpoint's files say: headers, names, stored formats; on disk or on a hub."""
