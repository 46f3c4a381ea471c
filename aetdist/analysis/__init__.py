"""What the atoms say of the sample: order, packing, surfaces."""
