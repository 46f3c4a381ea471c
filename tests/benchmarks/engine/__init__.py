"""What `bench_engine.py` measures: objects, peers, clocks, one function for each part, and the table."""
