"""What every other package may use: errors, files, random streams, ranges, targets, the log."""
