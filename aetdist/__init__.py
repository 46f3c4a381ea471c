"""Atomic electron tomography, distributed: the public names in the order of the experiment."""
