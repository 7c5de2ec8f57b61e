"""From a chunk's number to the runs it works on."""

from __future__ import annotations

from fastnorm._jit import element, loop
from fastnorm.plan.table import (
    AHEAD,
    BATCH,
    CHANNEL,
    COLUMNS,
    CUTS,
    FOLD,
    INNER,
    OUTER,
    PROBLEM,
    RUN,
    START,
    STEP_BATCH,
    STEP_CHANNEL,
    STEP_INNER,
    STEP_OUTER,
    TILE,
)


@element
def span(n_items, n_chunks, chunk):
    """Half-open range of `chunk` when n_items are dealt evenly to n_chunks."""
    return n_items * chunk // n_chunks, n_items * (chunk + 1) // n_chunks


@element
def position(table, operand, b, o, c, i):
    """Where element (b, o, c, i) of an operand lies."""
    return (
        table[operand, START]
        + b * table[operand, STEP_BATCH]
        + o * table[operand, STEP_OUTER]
        + c * table[operand, STEP_CHANNEL]
        + i * table[operand, STEP_INNER]
    )


@element
def lines_of(table, operand, b, c, i):
    """Where element i of every outer index begins, and the steps along outer and inner: loops that store keep them, because a store may
    have changed the table."""
    return position(table, operand, b, 0, c, i), table[operand, STEP_OUTER], table[operand, STEP_INNER]


@element
def place_on(lines, o, i):
    return lines[0] + o * lines[1] + i * lines[2]


@element
def plane_at(table, done):
    """Batch, outer, channel and inner index of element number `done`, counted as contiguous planes lie in memory."""
    inner, channel, outer = table[PROBLEM, INNER], table[PROBLEM, CHANNEL], table[PROBLEM, OUTER]
    plane = done // inner
    line = plane // channel
    b = line // outer
    return b, line - b * outer, plane - line * channel, done - plane * inner


@element
def next_plane(outer, channel, b, o, c):
    """Without a division: divisions were most of the time of planes of 8 x 8."""
    c += 1
    if c == channel:
        c, o = 0, o + 1
        if o == outer:
            o, b = 0, b + 1
    return b, o, c


@element
def next_statistic(b, c, channel):
    """A division takes 40 to 90 cycles, as long as the arithmetic of 256 elements."""
    return (b + 1, 0) if c + 1 == channel else (b, c + 1)


@element
def distance_to_next(table, operand, b, c):
    """From the elements of statistic (b, c) to those of the next."""
    step = table[operand, STEP_CHANNEL]
    return step if c + 1 < table[PROBLEM, CHANNEL] else table[operand, STEP_BATCH] - c * step


@element
def fetches_ahead(table):
    """Whether sums ask for what they read next."""
    return table[PROBLEM, AHEAD] != 0


@element
def elements_per_statistic(table):
    return table[PROBLEM, OUTER] * table[PROBLEM, INNER]


@element
def run_length(table, i, left):
    """Of the next run from inner index i: one tile, one parameter, one contiguous piece."""
    n = min(table[PROBLEM, INNER] - i, left)
    n = min(n, table[PROBLEM, TILE])
    run = table[PROBLEM, RUN]
    if 1 < run < table[PROBLEM, INNER]:
        n = min(n, run - i % run)
    return n


@element
def run_length_before(table, i, left):
    """The same, for the run that ends at inner index i: second sweeps go backwards, to what is in cache."""
    n = min(min(i, left), table[PROBLEM, TILE])
    run = table[PROBLEM, RUN]
    if 1 < run < table[PROBLEM, INNER]:
        n = min(n, (i - 1) % run + 1)
    return n


@element
def parameters_per_statistic(table):
    return table[PROBLEM, INNER] // table[PROBLEM, RUN]


@element
def column_step(table, operand):
    """From a column to the next one of an interleaved operand."""
    return table[operand, STEP_INNER] if table[PROBLEM, INNER] > 1 else table[operand, STEP_CHANNEL]


@element
def column_place(table, operand, b, row, column):
    """Where a row of a column tile begins."""
    return position(table, operand, b, row, 0, 0) + column * column_step(table, operand)


@element
def tiles_of_columns(table):
    columns = table[PROBLEM, CHANNEL] * table[PROBLEM, INNER]
    return (columns + table[PROBLEM, COLUMNS] - 1) // table[PROBLEM, COLUMNS]


@element
def units_of_columns(table):
    """Column tiles of all batches, times row cuts."""
    return table[PROBLEM, BATCH] * tiles_of_columns(table) * table[PROBLEM, CUTS]


@element
def tile_of_columns(table, tile):
    """Batch, first column and number of columns of a column tile."""
    tiles = tiles_of_columns(table)
    b = tile // tiles
    column = (tile - b * tiles) * table[PROBLEM, COLUMNS]
    return b, column, min(table[PROBLEM, COLUMNS], table[PROBLEM, CHANNEL] * table[PROBLEM, INNER] - column)


@element
def row_span(table, part):
    """Rows of a cut: whole folded rows, but for the last."""
    fold = table[PROBLEM, FOLD]
    outer = table[PROBLEM, OUTER]
    row, end = span((outer + fold - 1) // fold, table[PROBLEM, CUTS], part)
    return row * fold, min(end * fold, outer)


@element
def stretch(part, head, n_rows, n, total):
    """Where part 0, 1, 2 of a run of `total` elements begins, how many rows it has, and of how many elements: one of `head`
    elements, n_rows of n, and one of what is left."""
    if part == 0:
        return 0, 1, head
    if part == 1:
        return head, n_rows, n
    return head + n_rows * n, 1, total - head - n_rows * n


@loop
def fold_within(table, n, widest):
    """Rows of n columns that are read as one: the fold of the table, halved until no row is wider."""
    fold = table[PROBLEM, FOLD]
    while fold > 1 and n * fold > widest:
        fold //= 2
    return fold
