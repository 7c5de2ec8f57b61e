"""Loops over a tile of columns: rows of all channels side by side, vectorized over the columns."""

from __future__ import annotations

from fastnorm._jit import chunk_body, loop
from fastnorm.element.affine import added, distance, origin_near
from fastnorm.element.bits import choose, wide_vectors
from fastnorm.element.lanes import fused, lanes_of, load_lanes, write_lanes, zero_lanes
from fastnorm.element.moments import Moments, about_another_shift, about_shift, leans, merge, two_sum
from fastnorm.element.storage import as_compute, at, cut, fetch_for_later, load, row, write
from fastnorm.element.streaming import before_line
from fastnorm.kernels.groups_of_columns import gather_shifts, gather_sums, of_statistics, spread_shifts
from fastnorm.kernels.narrow_columns import kept_in_registers, sum_narrow, summed_in_registers
from fastnorm.kernels.prefetch import fetches_rows

# Rows that are summed in the compute dtype, then in float64.
ROWS = 64
# Rows whose mean is the first shift; as few need no other.
FEW_LINES = 8
# Parts of `leans` beyond which sums are not continued. The first rows' mean is off by 5 standard deviations of such a mean before a first
# block is summed again, the mean of a block by 8. Either loses two bits of m2 at most: 5e-7 of the variance.
LEANING_FIRST, LEANING = 0.75, 0.5
# Bytes of a folded row. Eight of 8192 bytes are more than L1 holds beside their sums, and float64 sums of so many columns cost as much as
# those of 64 rows: moments of (25088, 256) took 1.3 times as long, of (6272, 128) 1.5, with 4096 bytes 1.1.
SUMMED_BYTES = 2048


@chunk_body
def sum_eights(src, start, step, n_rows, n, shift, total, squares, ahead):
    """Eight rows at a time: one load and store of the running sums per eight rows.

    ahead : whether the next eight are fetched meanwhile
    """
    wide_vectors()
    lanes = lanes_of(src)
    whole = n // lanes * lanes
    fetches = lanes > 1 and fetches_rows(src, ahead, step)
    for k in range(0, n_rows, 8):
        place = start + k * step
        r0 = cut(src, place, n)
        r1 = cut(src, place + step, n)
        r2 = cut(src, place + 2 * step, n)
        r3 = cut(src, place + 3 * step, n)
        r4 = cut(src, place + 4 * step, n)
        r5 = cut(src, place + 5 * step, n)
        r6 = cut(src, place + 6 * step, n)
        r7 = cut(src, place + 7 * step, n)
        for i in range(0, whole, lanes):
            if fetches:
                for r in range(8, 16):
                    fetch_for_later(src, place + r * step + i)
            add_eight(src, r0, r1, r2, r3, r4, r5, r6, r7, i, None, shift, total, squares)
        if whole < n:
            add_eight(src, r0, r1, r2, r3, r4, r5, r6, r7, whole, n - whole, shift, total, squares)


@loop
def add_eight(src, r0, r1, r2, r3, r4, r5, r6, r7, i, count, shift, total, squares):
    """Lanes of eight rows from column i on, only the first `count` of them unless that is None."""
    m = load_lanes(shift, i, count, src)
    d0 = distance(load_lanes(r0, i, count, src), m)
    d1 = distance(load_lanes(r1, i, count, src), m)
    d2 = distance(load_lanes(r2, i, count, src), m)
    d3 = distance(load_lanes(r3, i, count, src), m)
    d4 = distance(load_lanes(r4, i, count, src), m)
    d5 = distance(load_lanes(r5, i, count, src), m)
    d6 = distance(load_lanes(r6, i, count, src), m)
    d7 = distance(load_lanes(r7, i, count, src), m)
    of_rows = ((d0 + d1) + (d2 + d3)) + ((d4 + d5) + (d6 + d7))
    first = fused(d3, d3, fused(d2, d2, fused(d1, d1, d0 * d0)))
    products = added(first, fused(d7, d7, fused(d6, d6, fused(d5, d5, d4 * d4))))
    write_lanes(total, i, added(load_lanes(total, i, count, src), of_rows), count)
    write_lanes(squares, i, added(load_lanes(squares, i, count, src), products), count)


@chunk_body
def sum_few(src, start, step, n_rows, n, shift, total, squares):
    """Less than eight rows, of one column after the other."""
    wide_vectors()
    lanes = lanes_of(src)
    whole = n // lanes * lanes
    for i in range(0, whole, lanes):
        add_few(src, start, step, n_rows, n, i, None, shift, total, squares)
    if whole < n:
        add_few(src, start, step, n_rows, n, whole, n - whole, shift, total, squares)


@loop
def add_few(src, start, step, n_rows, n, i, count, shift, total, squares):
    m = load_lanes(shift, i, count, src)
    of_rows, products = load_lanes(total, i, count, src), load_lanes(squares, i, count, src)
    for k in range(n_rows):
        d = distance(load_lanes(cut(src, start + k * step, n), i, count, src), m)
        of_rows = of_rows + d
        products = fused(d, d, products)
    write_lanes(total, i, of_rows, count)
    write_lanes(squares, i, products, count)


@chunk_body
def clear(vector, n):
    wide_vectors()
    for i in range(n):
        vector[i] = 0


@chunk_body
def merge_columns(count, mean, low, m2, other_count, other_mean, other_low, other_m2, n):
    """Moments of every column joined with those of as many further rows."""
    wide_vectors()
    for i in range(n):
        other = Moments(other_count, at(other_mean, i), at(other_low, i), at(other_m2, i))
        joined = merge(Moments(count, at(mean, i), at(low, i), at(m2, i)), other)
        write(mean, i, joined.mean)
        write(low, i, joined.low)
        write(m2, i, joined.m2)


@chunk_body
def add_sums(count, first, total, low, squares, block_total, block_squares, n):
    """Float64 sums of `count` rows: those of a block, and unless it is the first those before it. How many columns lean too far then."""
    wide_vectors()
    far, most = 0, LEANING_FIRST if first else LEANING
    for i in range(n):
        joined, rest = two_sum(choose(first, 0.0, at(total, i)), as_compute(0.0, at(block_total, i)))
        square = choose(first, 0.0, at(squares, i)) + as_compute(0.0, at(block_squares, i))
        write(total, i, joined)
        write(low, i, choose(first, 0.0, at(low, i)) + rest)
        write(squares, i, square)
        far += leans(count, joined, square, most)
    return far


@chunk_body
def shift_to_mean(src, count, shift, total, low, squares, n):
    """Move the shift of sums to the mean that they tell."""
    wide_vectors()
    for i in range(n):
        old = at(shift, i)
        new = origin_near(src, old + as_compute(old, at(total, i) / count))
        moved = distance(as_compute(0.0, new), as_compute(0.0, old))
        first, rest, squared = about_another_shift(count, at(total, i), at(low, i), at(squares, i), moved)
        write(shift, i, new)
        write(total, i, first)
        write(low, i, rest)
        write(squares, i, squared)


@chunk_body
def moments_of_sums(count, shift, total, low, squares, n):
    """From sums of d and d*d to mean, low and m2, in their place."""
    wide_vectors()
    for i in range(n):
        joined = about_shift(count, as_compute(0.0, at(shift, i)), at(total, i) + at(low, i), at(squares, i))
        write(total, i, joined.mean)
        write(low, i, joined.low)
        write(squares, i, joined.m2)


@loop
def sum_rows(registers, src, start, step, n_rows, n, kept, shift, total, squares, ahead):
    """Sums of d and d*d of every column, where d = x - shift.

    registers : of `summed_in_registers`
    kept      : columns whose sums stay in registers, or 0; a part of n, of which the others are copies
    """
    if sum_narrow(registers, None, src, 0, start, 0, step, n_rows, n, kept, shift, total, squares, ahead):
        return
    clear(total, n)
    clear(squares, n)
    eights = n_rows // 8 * 8
    sum_eights(src, start, step, eights, n, shift, total, squares, ahead)
    if eights < n_rows:
        sum_few(src, start + eights * step, step, n_rows - eights, n, shift, total, squares)


@chunk_body
def mean_of_few(src, start, step, n_rows, n, mean):
    wide_vectors()
    lanes = lanes_of(src)
    whole = n // lanes * lanes
    share = as_compute(zero_lanes(src), 1.0 / n_rows)
    for i in range(0, whole, lanes):
        write_lanes(mean, i, mean_in_lanes(src, start, step, n_rows, n, share, i, None), None)
    if whole < n:
        write_lanes(mean, whole, mean_in_lanes(src, start, step, n_rows, n, share, whole, n - whole), n - whole)


@loop
def mean_in_lanes(src, start, step, n_rows, n, share, i, count):
    first, of_rows = load_lanes(cut(src, start, n), i, count, src), zero_lanes(src)
    for k in range(1, n_rows):
        of_rows = of_rows + distance(load_lanes(cut(src, start + k * step, n), i, count, src), first)
    return origin_near(src, first + of_rows * share)


@chunk_body
def sum_about_own_mean(src, start, step, n_rows, n, shift, total, squares):
    """Sums of so few rows that L1 holds a line of each, and the shift: their mean. No column leans, as every element is in the mean.

    Not of 16: as many lines of rows that are whole pages apart are more than a set of L1 holds, and took 5 to 9 ns a column instead of
    1.1 to 1.6 for eight.
    """
    wide_vectors()
    lanes = lanes_of(src)
    whole = n // lanes * lanes
    share = as_compute(zero_lanes(src), 1.0 / n_rows)
    for i in range(0, whole, lanes):
        add_about_own_mean(src, start, step, n_rows, n, share, i, None, shift, total, squares)
    if whole < n:
        add_about_own_mean(src, start, step, n_rows, n, share, whole, n - whole, shift, total, squares)


@loop
def add_about_own_mean(src, start, step, n_rows, n, share, i, count, shift, total, squares):
    m = mean_in_lanes(src, start, step, n_rows, n, share, i, count)
    of_rows, products = zero_lanes(src), zero_lanes(src)
    for k in range(n_rows):
        d = distance(load_lanes(cut(src, start + k * step, n), i, count, src), m)
        of_rows = of_rows + d
        products = fused(d, d, products)
    write_lanes(shift, i, m, count)
    write_lanes(total, i, of_rows, count)
    write_lanes(squares, i, products, count)


@chunk_body
def moments_of_own_sums(count, shift, total, squares, mean, low, m2, n):
    """From sums in the compute dtype to mean, low and m2."""
    wide_vectors()
    for i in range(n):
        sums = as_compute(0.0, at(shift, i)), as_compute(0.0, at(total, i)), as_compute(0.0, at(squares, i))
        found = about_shift(count, sums[0], sums[1], sums[2])
        write(mean, i, found.mean)
        write(low, i, found.low)
        write(m2, i, found.m2)


@chunk_body
def add_squares(line, m2, n):
    wide_vectors()
    for i in range(n):
        value = load(line, i)
        m2[i] += value * value


@loop
def moments_of_rows(src, centre, start, step, n_rows, n, fold, grouped, each, count, moments, block_moments, sums, ahead):
    """Merge the moments of n_rows rows of n columns, `fold` of them side by side, into moments[1:4], that hold `count` elements each.

    centre : None for moments about zero
    grouped, each : None and 1, or anything and how many columns belong to a statistic; about zero columns stay apart
    block_moments : scratch like moments; sums : scratch (4, at least n * fold) in the compute dtype
    """
    if centre is None:
        squares = row(moments, 3)
        for line in range(n_rows):
            add_squares(cut(src, start + line * step, n * fold), squares, n * fold)
        unfold(squares, fold, n)
        return count + float(n_rows * fold)
    if grouped is None and n_rows * fold <= FEW_LINES:
        return moments_of_few(src, start, step, n_rows, n, count, moments, block_moments, sums)
    return moments_of_blocks(src, start, step, n_rows, n, fold, grouped, each, count, moments, block_moments, sums, ahead)


@loop
def moments_of_few(src, start, step, n_rows, n, count, moments, block_moments, sums):
    if n_rows > 0:
        shift, total, squares = row(sums, 0), row(sums, 1), row(sums, 2)
        target = moments if count == 0.0 else block_moments
        mean, low, m2 = row(target, 1), row(target, 2), row(target, 3)
        sum_about_own_mean(src, start, step, n_rows, n, shift, total, squares)
        moments_of_own_sums(float(n_rows), shift, total, squares, mean, low, m2, n)
        if count > 0.0:
            merge_columns(count, row(moments, 1), row(moments, 2), row(moments, 3), float(n_rows), mean, low, m2, n)
    return count + float(n_rows)


@loop
def moments_of_blocks(src, start, step, n_rows, n, fold, grouped, each, count, moments, block_moments, sums, ahead):
    """Sums of blocks about one shift, the mean of the first, as long as no column is lopsided; then their moments, and another shift.

    Moments of each block and their merge took as long as half of its sums, and a shift for each an eighth of them. Rows side by side
    share the shift, so that their sums are added, and only n columns are widened: with a shift, moments and a merge of every copy the
    moments of 64 to 256 KB took 1.3 times as long, of 1 to 4 MB 1.15 to 1.25 (Zen 4). So do the columns of a statistic.
    """
    shift, total, squares, statistics = row(sums, 0), row(sums, 1), row(sums, 2), n // each
    origins, totals, products = of_statistics(grouped, sums, moments, block_moments)
    held, done, again = 0.0, 0, False
    registers = summed_in_registers(src, None, None)
    kept = kept_in_registers(registers, src, n, n * fold, step, step)
    copies = kept // n if kept > 0 else fold
    while done < n_rows:
        place, block = start + done * step, min(ROWS, n_rows - done)
        size, first = float(block * fold * each), held == 0.0
        if first and not again:
            # one of those side by side after the other: an image's borders are all its first columns
            apart = step + step // fold if fold >= FEW_LINES else step
            mean_of_few(src, place, apart, min(FEW_LINES, block), n, shift)
            gather_shifts(grouped, src, shift, origins, statistics, each)
            repeat(shift, n, copies)
        sum_rows(registers, src, place, step, block, n * fold, kept, shift, total, squares, ahead)
        unfold(total, copies, n)
        unfold(squares, copies, n)
        gather_sums(grouped, total, totals, statistics, each)
        gather_sums(grouped, squares, products, statistics, each)
        target = moments if count == 0.0 else block_moments
        mean, low, m2 = row(target, 1), row(target, 2), row(target, 3)
        far = add_sums(held + size, first, mean, low, m2, totals, products, statistics)
        if first and (far > 0 or done + block < n_rows):
            shift_to_mean(src, size, origins, mean, low, m2, statistics)
            spread_shifts(grouped, shift, origins, statistics, each)
            repeat(shift, n, copies)
            again = far > 0 and not again  # the first rows were unlike the others
            if again:
                continue
        held += size
        done += block
        if (far > 0 and not first) or done == n_rows:
            moments_of_sums(held, origins, mean, low, m2, statistics)
            if count > 0.0:
                merge_columns(count, row(moments, 1), row(moments, 2), row(moments, 3), held, mean, low, m2, statistics)
            count += held
            held = 0.0
    return count


@loop
def unfold(sums, fold, n):
    """Add `fold` copies of n columns, a power of two of them side by side, to the first; half of them to the other half."""
    while fold > 1:
        fold //= 2
        add_run(sums, cut(sums, fold * n, fold * n), fold * n)


@chunk_body
def copy_run(target, source, n):
    """By itself, because the loops around it are compiled for size: a scalar copy took longer than the sums."""
    wide_vectors()
    for i in range(n):
        target[i] = source[i]


@loop
def repeat(vector, n, fold):
    """Copy the first n elements behind themselves, until they are there `fold` times, a power of two."""
    width = n
    while width < n * fold:
        copy_run(cut(vector, width, width), vector, width)
        width *= 2


# Elements beyond those of a vector of parameters: before the first one, so that they meet cache lines where those of the output do, and
# behind the last one, those of the first again.
SPARE, PERIOD = 64, 32


@loop
def lead_of(out, place):
    """Elements to leave free before the parameters of those of `out` from `place` on, so that both meet a cache line together.

    Large arrays of NumPy begin 16 bytes behind one. Rows whose vectors cross lines, four of parameters among them, and that share
    their first and last line with others: inference of (100352, 256) took 9.6 ms instead of 3.9, training 14.4 instead of 7.7.
    """
    return -before_line(out, place) & (PERIOD - 1)


@loop
def repeat_beyond(vector, n, fold):
    """The same, and PERIOD elements further: rows that begin anywhere in the first ones."""
    repeat(vector, n, fold)
    copy_run(cut(vector, n * fold, PERIOD), vector, PERIOD)


@chunk_body
def add_run(target, source, n):
    wide_vectors()
    for i in range(n):
        target[i] += source[i]


@loop
def rows_of(first, second, third, places, steps, line, n):
    """Row number `line` of three operands."""
    return (
        cut(first, places[0] + line * steps[0], n),
        cut(second, places[1] + line * steps[1], n),
        cut(third, places[2] + line * steps[2], n),
    )
