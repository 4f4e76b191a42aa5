"""Layer 2, numpy side: an example of a data set and a template make a prompt, its targets and its answer choices."""
