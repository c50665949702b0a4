"""What earlier runs came to: a snapshot of each, what changed between two, and since when."""
