"""Images from one memory order of their channels to another: cast, centred, scaled and turned in one pass.

Table: c is the channel, o or i the pixel, whichever there are several of.
parameters : (3, channel) in the compute dtype: high and low part of the centre, and the factor
"""

from __future__ import annotations

import numpy as np
from numba import prange

from fastnorm._jit import chunk_body, driver, loop, parallel_driver
from fastnorm.element.affine import affine
from fastnorm.element.bits import compact, fence, wide_vectors
from fastnorm.element.storage import as_compute, cut, flush, load, row, write
from fastnorm.kernels.scratch import staging
from fastnorm.kernels.walk import position, span
from fastnorm.plan.table import BATCH, CHANNEL, CHUNKS, INNER, OUT, OUTER, PROBLEM, SRC, STEP_CHANNEL, STEP_INNER, STEP_OUTER, STREAM

# Pixels of one tile: three staged planes of float64 fit the stage, and stay in L1 with their source.
PIXELS = 512


@loop
def turned(run, i, high, low, factor):
    """One element, in the compute dtype of the parameters."""
    return affine(as_compute(factor, load(run, i)), high, low, factor, None, as_compute(factor, 0.0))


@chunk_body
def three_to_planes(run, red, green, blue, n, parameters):
    """Pixels of three neighbouring channels to three planes: loads in groups of three vectorize."""
    wide_vectors()
    high, low, factor = row(parameters, 0), row(parameters, 1), row(parameters, 2)
    h0, h1, h2, l0, l1, l2 = high[0], high[1], high[2], low[0], low[1], low[2]
    f0, f1, f2 = factor[0], factor[1], factor[2]
    for i in range(n):
        write(red, i, turned(run, 3 * i, h0, l0, f0))
        write(green, i, turned(run, 3 * i + 1, h1, l1, f1))
        write(blue, i, turned(run, 3 * i + 2, h2, l2, f2))


@chunk_body
def planes_to_three(red, green, blue, out, n, parameters):
    wide_vectors()
    high, low, factor = row(parameters, 0), row(parameters, 1), row(parameters, 2)
    h0, h1, h2, l0, l1, l2 = high[0], high[1], high[2], low[0], low[1], low[2]
    f0, f1, f2 = factor[0], factor[1], factor[2]
    for i in range(n):
        write(out, 3 * i, turned(red, i, h0, l0, f0))
        write(out, 3 * i + 1, turned(green, i, h1, l1, f1))
        write(out, 3 * i + 2, turned(blue, i, h2, l2, f2))


@chunk_body
def one_channel(src, out, at, step, to, out_step, n, high, low, factor):
    wide_vectors()
    source, target = cut(src, at, (n - 1) * step + 1), cut(out, to, (n - 1) * out_step + 1)
    for i in range(n):
        write(target, i * out_step, turned(source, i * step, high, low, factor))


@loop
def pixel_step(table, operand):
    return table[operand, STEP_INNER] if table[PROBLEM, INNER] > 1 else table[operand, STEP_OUTER]


@loop
def turn_tile(src, out, staged, streaming, table, parameters, b, pixel, n):
    """n pixels of image b from `pixel` on."""
    channels = table[PROBLEM, CHANNEL]
    step, out_step = pixel_step(table, SRC), pixel_step(table, OUT)
    plane, out_plane = table[SRC, STEP_CHANNEL], table[OUT, STEP_CHANNEL]
    at = position(table, SRC, b, 0, 0, 0) + pixel * step
    to = position(table, OUT, b, 0, 0, 0) + pixel * out_step
    if channels == 3 and step == 3 and plane == 1 and out_step == 1:
        run = cut(src, at, 3 * n)
        if streaming:
            three_to_planes(run, cut(staged, 0, n), cut(staged, PIXELS, n), cut(staged, 2 * PIXELS, n), n, parameters)
            for c in range(3):
                flush(cut(staged, c * PIXELS, n), out, to + c * out_plane, n)
        else:
            three_to_planes(run, cut(out, to, n), cut(out, to + out_plane, n), cut(out, to + 2 * out_plane, n), n, parameters)
    elif channels == 3 and out_step == 3 and out_plane == 1 and step == 1:
        target = cut(staged, 0, 3 * n) if streaming else cut(out, to, 3 * n)
        planes_to_three(cut(src, at, n), cut(src, at + plane, n), cut(src, at + 2 * plane, n), target, n, parameters)
        if streaming:
            flush(staged, out, to, 3 * n)
    else:
        for c in range(channels):
            high, low, factor = parameters[0, c], parameters[1, c], parameters[2, c]
            one_channel(src, out, at + c * plane, step, to + c * out_plane, out_step, n, high, low, factor)


@chunk_body
def turn_images_chunk(src, out, parameters, table, chunk):
    """An even share of the pixels of all images."""
    compact()
    n_pixels = table[PROBLEM, OUTER] * table[PROBLEM, INNER]
    tiles = (n_pixels + PIXELS - 1) // PIXELS
    first, last = span(table[PROBLEM, BATCH] * tiles, table[PROBLEM, CHUNKS], chunk)
    streaming = table[PROBLEM, STREAM] != 0
    staged = staging(out, table[PROBLEM, STREAM])
    for unit in range(first, last):
        b = unit // tiles
        pixel = (unit - b * tiles) * PIXELS
        turn_tile(src, out, staged, streaming, table, parameters, b, pixel, min(PIXELS, n_pixels - pixel))
    fence()


@driver
def turn_images_serial(src, out, parameters, table):
    for chunk in range(table[PROBLEM, CHUNKS]):
        turn_images_chunk(src, out, parameters, table, chunk)


@parallel_driver
def turn_images_parallel(src, out, parameters, table):
    for chunk in prange(table[PROBLEM, CHUNKS]):
        turn_images_chunk(src, out, parameters, table, np.intp(chunk))
