"""From raw frames to images that can be aligned: registration, scan distortion, noise, background."""
