"""From raw frames to images that can be aligned: registration, scan distortion, noise, background."""

from .background import subtract_background
from .denoise import denoise
from .distortion import calibrate_scan
from .frames import register_frames, sum_frames
from .noise import NoiseModel, estimate_noise_model
from .stage import correct_frames, preprocess_acquisition, warn_of_images

__all__ = [
    "NoiseModel",
    "calibrate_scan",
    "correct_frames",
    "denoise",
    "estimate_noise_model",
    "preprocess_acquisition",
    "register_frames",
    "subtract_background",
    "sum_frames",
    "warn_of_images",
]
