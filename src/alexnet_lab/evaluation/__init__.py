"""A finished run, rebuilt from its directory alone, and what it makes of images."""
