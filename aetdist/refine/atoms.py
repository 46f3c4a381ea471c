def refine_atoms(): pass
