"""One file per data set: where its images come from, and the data module that serves them."""
