"""Layer 2, numpy side: token files, sample order, rows and batches."""
