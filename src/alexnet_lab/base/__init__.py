"""What all other packages use: errors, files, random streams, ranges, targets, the log."""
