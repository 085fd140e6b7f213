"""Drawing of images."""

import numpy as np
from matplotlib.axes import Axes


def show_image(axes: Axes, image: np.ndarray) -> None:
    """Draw an image (H, W, C) of 0..1: gray, RGB or RGBA; with any other number of channels each in gray, from left to right.

    Where the limits of the axes are those of the image, only its first channel is in sight.
    """
    channels = image.shape[-1]
    shown = image if channels in (3, 4) else np.concatenate(np.moveaxis(image, -1, 0), axis=1)  # (H, C · W)
    axes.imshow(np.clip(shown, 0, 1), cmap="gray", vmin=0, vmax=1)
    axes.axis("off")
