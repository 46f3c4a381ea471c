"""From traced atoms and the tilt series to the atoms that explain it best, and how sure each of them is."""
