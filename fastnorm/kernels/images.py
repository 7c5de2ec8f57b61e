"""Images from one memory order of their channels to another: cast, centred, scaled and turned in one pass.

Table: c is the channel, o or i the pixel, whichever there are several of.
parameters : (3, channel) in the compute dtype: high part of the centre, the factor, and what the low part of the centre is worth
"""

from __future__ import annotations

from fastnorm._jit import chunk_body, driver, loop
from fastnorm.element.affine import affine
from fastnorm.element.bits import compact, fence, wide_vectors
from fastnorm.element.storage import as_compute, at, cut, load, row, subrun, write
from fastnorm.element.streaming import BLOCK, before_line, block_of, flush, stream_block
from fastnorm.kernels.dealing import deal
from fastnorm.kernels.scratch import staging
from fastnorm.kernels.walk import position, span
from fastnorm.plan.table import (
    BATCH,
    CHANNEL,
    CHUNKS,
    INNER,
    OUT,
    OUTER,
    PROBLEM,
    SRC,
    STEP_BATCH,
    STEP_CHANNEL,
    STEP_INNER,
    STEP_OUTER,
    STREAM,
)

# Pixels of one tile: three staged planes stay in L1 with their source.
PIXELS = 512


@loop
def turned(run, i, of_channel):
    """One element, in the compute dtype of the parameters: high part of the centre, the factor, and what the low part is worth."""
    high, factor, offset = of_channel
    return affine(as_compute(factor, load(run, i)), high, factor, offset, None, None)


@loop
def turn_three(run, red, green, blue, n, of_red, of_green, of_blue):
    for i in range(n):
        write(red, i, turned(run, 3 * i, of_red))
        write(green, i, turned(run, 3 * i + 1, of_green))
        write(blue, i, turned(run, 3 * i + 2, of_blue))


@chunk_body
def three_to_planes(run, red, green, blue, n, of_red, of_green, of_blue):
    """Pixels of three neighbouring channels to three planes: loads in groups of three vectorize."""
    wide_vectors()
    turn_three(run, red, green, blue, n, of_red, of_green, of_blue)


@chunk_body
def planes_to_three(red, green, blue, out, n, of_red, of_green, of_blue):
    wide_vectors()
    for i in range(n):
        write(out, 3 * i, turned(red, i, of_red))
        write(out, 3 * i + 1, turned(green, i, of_green))
        write(out, 3 * i + 2, turned(blue, i, of_blue))


@chunk_body
def one_channel(src, out, begin, step, to, out_step, n, of_channel):
    wide_vectors()
    source, target = cut(src, begin, (n - 1) * step + 1), cut(out, to, (n - 1) * out_step + 1)
    for i in range(n):
        write(target, i * out_step, turned(source, i * step, of_channel))


@loop
def parameters_of(parameters, c):
    return at(row(parameters, 0), c), at(row(parameters, 1), c), at(row(parameters, 2), c)


@loop
def pixel_step(table, operand):
    return table[operand, STEP_INNER] if table[PROBLEM, INNER] > 1 else table[operand, STEP_OUTER]


@loop
def tile_of(table, unit):
    """Image, first pixel and number of pixels of a tile."""
    n_pixels = table[PROBLEM, OUTER] * table[PROBLEM, INNER]
    tiles = tiles_of_image(table)
    b = unit // tiles
    pixel = (unit - b * tiles) * PIXELS
    return b, pixel, min(PIXELS, n_pixels - pixel)


@loop
def tiles_of_image(table):
    return (table[PROBLEM, OUTER] * table[PROBLEM, INNER] + PIXELS - 1) // PIXELS


# Each of the next three goes through all tiles of a chunk: arrays are counted once by whom they are passed to, and a
# locked count waits for all stores that stream. Counted tile by tile they took half as long again.


@chunk_body
def tiles_to_planes(src, out, staged, table, first, last, of_red, of_green, of_blue):
    compact()
    plane = table[OUT, STEP_CHANNEL]
    for unit in range(first, last):
        b, pixel, n = tile_of(table, unit)
        to = position(table, OUT, b, 0, 0, 0) + pixel
        run = cut(src, position(table, SRC, b, 0, 0, 0) + pixel * 3, 3 * n)
        if table[PROBLEM, STREAM] != 0:
            staged_to_planes(run, staged, out, to, plane, 0, n, of_red, of_green, of_blue)
        else:
            three_to_planes(run, cut(out, to, n), cut(out, to + plane, n), cut(out, to + 2 * plane, n), n, of_red, of_green, of_blue)


@loop
def staged_to_planes(run, staged, out, to, plane, begin, end, of_red, of_green, of_blue):
    n = end - begin
    three_to_planes(
        subrun(run, 3 * begin, 3 * n), cut(staged, 0, n), cut(staged, PIXELS, n), cut(staged, 2 * PIXELS, n), n, of_red, of_green, of_blue
    )
    for c in range(3):
        flush(cut(staged, c * PIXELS, n), out, to + begin + c * plane, n)


@loop
def meet_lines_together(out, table):
    """Whether the planes of all images lie alike in cache lines."""
    place, plane = position(table, OUT, 0, 0, 0, 0), table[OUT, STEP_CHANNEL]
    head = before_line(out, place)
    return head == before_line(out, place + plane) and head == before_line(out, place + table[OUT, STEP_BATCH])


@chunk_body
def blocks_to_planes(src, out, staged, table, first, last, of_red, of_green, of_blue):
    """Straight from registers, where the planes meet cache lines together: staged, 64 images of 224 x 224 took 1.0 to 1.13 times as long by
    the median of ten pairs, 1.5 to 1.7 at best."""
    wide_vectors()
    plane, n_pixels = table[OUT, STEP_CHANNEL], table[PROBLEM, OUTER] * table[PROBLEM, INNER]
    red, green, blue = block_of(out), block_of(out), block_of(out)
    for unit in range(first, last):
        b, pixel, n = tile_of(table, unit)
        to, run = position(table, OUT, b, 0, 0, 0), cut(src, position(table, SRC, b, 0, 0, 0), 3 * n_pixels)
        head = min(before_line(out, to), n_pixels)
        begin, end = min(pixel + head, n_pixels), min(pixel + n + head, n_pixels)  # of blocks, but for the first and the last of an image
        if pixel == 0:
            staged_to_planes(run, staged, out, to, plane, 0, head, of_red, of_green, of_blue)
        whole = begin + (end - begin) // BLOCK * BLOCK
        for k in range(begin, whole, BLOCK):
            turn_three(subrun(run, 3 * k, 3 * BLOCK), red, green, blue, BLOCK, of_red, of_green, of_blue)
            stream_block(red, out, to + k)
            stream_block(green, out, to + plane + k)
            stream_block(blue, out, to + 2 * plane + k)
        staged_to_planes(run, staged, out, to, plane, whole, end, of_red, of_green, of_blue)


@chunk_body
def tiles_to_pixels(src, out, staged, table, first, last, of_red, of_green, of_blue):
    compact()
    plane = table[SRC, STEP_CHANNEL]
    for unit in range(first, last):
        b, pixel, n = tile_of(table, unit)
        begin = position(table, SRC, b, 0, 0, 0) + pixel
        to = position(table, OUT, b, 0, 0, 0) + pixel * 3
        streaming = table[PROBLEM, STREAM] != 0
        target = cut(staged, 0, 3 * n) if streaming else cut(out, to, 3 * n)
        red, green, blue = cut(src, begin, n), cut(src, begin + plane, n), cut(src, begin + 2 * plane, n)
        planes_to_three(red, green, blue, target, n, of_red, of_green, of_blue)
        if streaming:
            flush(staged, out, to, 3 * n)


@chunk_body
def tiles_by_channel(src, out, table, parameters, first, last):
    """Any number of channels and any steps."""
    compact()
    step, out_step = pixel_step(table, SRC), pixel_step(table, OUT)
    for unit in range(first, last):
        b, pixel, n = tile_of(table, unit)
        for c in range(table[PROBLEM, CHANNEL]):
            begin = position(table, SRC, b, 0, c, 0) + pixel * step
            to = position(table, OUT, b, 0, c, 0) + pixel * out_step
            one_channel(src, out, begin, step, to, out_step, n, parameters_of(parameters, c))


@chunk_body
def turn_images_chunk(src, out, parameters, table, chunk):
    """An even share of the tiles of all images."""
    compact()
    first, last = span(table[PROBLEM, BATCH] * tiles_of_image(table), table[PROBLEM, CHUNKS], chunk)
    staged = staging(out, 3 * PIXELS * table[PROBLEM, STREAM])
    step, out_step = pixel_step(table, SRC), pixel_step(table, OUT)
    three = table[PROBLEM, CHANNEL] == 3
    end = table[PROBLEM, CHANNEL] - 1
    of_red, of_green, of_blue = parameters_of(parameters, 0), parameters_of(parameters, min(1, end)), parameters_of(parameters, end)
    if three and step == 3 and table[SRC, STEP_CHANNEL] == 1 and out_step == 1:
        if table[PROBLEM, STREAM] != 0 and meet_lines_together(out, table):
            blocks_to_planes(src, out, staged, table, first, last, of_red, of_green, of_blue)
        else:
            tiles_to_planes(src, out, staged, table, first, last, of_red, of_green, of_blue)
    elif three and out_step == 3 and table[OUT, STEP_CHANNEL] == 1 and step == 1:
        tiles_to_pixels(src, out, staged, table, first, last, of_red, of_green, of_blue)
    else:
        tiles_by_channel(src, out, table, parameters, first, last)
    fence()


@driver
def turn_images(crew, src, out, parameters, table):
    deal(crew, turn_images_chunk, table[PROBLEM, CHUNKS], (src, out, parameters, table))
