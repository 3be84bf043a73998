"""What training reads: crops as arrays, pairs as batches; every batch a pure function of (seed, step)."""
