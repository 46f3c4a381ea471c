"""How graphs are cut: windows, angles, atoms."""
