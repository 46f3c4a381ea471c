"""What the benchmarks of whole clusters share."""
