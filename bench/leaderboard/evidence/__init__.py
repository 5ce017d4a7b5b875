"""What a run leaves on the disk: its folder, manifest and records, and whether they can be believed."""
