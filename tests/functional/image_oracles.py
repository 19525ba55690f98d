"""Pictures as float64 loops over pixels: colour by `colorsys`, resampling by its definition."""

import colorsys

import numpy as np


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def luma(pixel):
    return 0.299 * pixel[0] + 0.587 * pixel[1] + 0.114 * pixel[2] if len(pixel) == 3 else pixel[0]


def each_pixel(change):
    """A function of one pixel and its picture, on pictures [n, h, w, c] of numbers in [0, 1]."""

    def run(pictures, *amounts):
        out = np.empty_like(pictures)
        for n, picture in enumerate(pictures):
            for place in np.ndindex(picture.shape[:2]):
                out[(n, *place)] = np.clip(change(picture[place], picture, *amounts), 0, 1)
        return out

    return run


def mean_luma(picture):
    return np.mean([luma(p) for p in picture.reshape(-1, picture.shape[-1])])


def turned(pixel, picture, shift):
    hue, saturation, value = colorsys.rgb_to_hsv(*pixel)
    return colorsys.hsv_to_rgb((hue + shift) % 1, saturation, value)


brightness = each_pixel(lambda pixel, picture, f: f * pixel)
contrast = each_pixel(lambda pixel, picture, f: f * pixel + (1 - f) * mean_luma(picture))
saturation = each_pixel(lambda pixel, picture, f: f * pixel + (1 - f) * luma(pixel))
hue = each_pixel(turned)


def triangle(x):
    return max(0.0, 1 - abs(x))


def keys_cubic(x):
    """Keys 1981 with a = -1/2."""
    x = abs(x)
    if x < 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0


def weights(kernel, length, start, extent, size):
    """Of every pixel for every place of the result: the kernel, widened when it shrinks."""
    step = extent / size
    wide = max(step, 1.0)
    matrix = np.zeros((size, length))
    for i in range(size):
        centre = start + (i + 0.5) * step
        for j in range(length):
            matrix[i, j] = kernel((j + 0.5 - centre) / wide)
        matrix[i] /= matrix[i].sum()
    return matrix


def resampled(pictures, box, size, kernel=triangle):
    rows = weights(kernel, pictures.shape[1], box[0], box[2], size[0])
    columns = weights(kernel, pictures.shape[2], box[1], box[3], size[1])
    return np.einsum("ih,jw,nhwc->nijc", rows, columns, pictures)


def torchvision_box(draws, image_size, scale, ratio):
    """`RandomResizedCrop.get_params` of torchvision, its draws given."""
    height, width = image_size
    for area_draw, ratio_draw, top_draw, left_draw in draws:
        area = height * width * (scale[0] + area_draw * (scale[1] - scale[0]))
        low, high = np.log(ratio[0]), np.log(ratio[1])
        aspect = np.exp(low + ratio_draw * (high - low))
        w, h = round(np.sqrt(area * aspect)), round(np.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return int(top_draw * (height - h + 1)), int(left_draw * (width - w + 1)), h, w
    if width / height < ratio[0]:
        w, h = width, round(width / ratio[0])
    elif width / height > ratio[1]:
        w, h = round(height * ratio[1]), height
    else:
        w, h = width, height
    return (height - h) // 2, (width - w) // 2, h, w
