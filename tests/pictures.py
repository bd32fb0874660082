"""What tests ask of a picture."""

import io

import numpy as np
from PIL import Image


def pixels(picture):
    """The picture as numbers [height, width, 3]."""
    return np.asarray(Image.open(io.BytesIO(picture.png)).convert("RGB"), dtype=int)


def near(picture, colour):
    """How many pixels nearly have a colour."""
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return int((np.abs(pixels(picture) - wanted).max(-1) < 40).sum())
