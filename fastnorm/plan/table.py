"""The table of integers that a kernel receives: where each number stands in it.

Row 0 is the problem, every further row an operand: where its element (b, o, c, i) lies.
An array and not a tuple, because one argument is unpacked faster than thirty.
"""

# Row 0: the geometry,
BATCH, OUTER, CHANNEL, INNER, RUN = 0, 1, 2, 3, 4
# how it is cut into chunks, and how a chunk walks.
# CUTS   : parts of one statistic's elements (planar) or of the rows (interleaved)
# CHUNKS : what the units (statistics or column tiles, times cuts) are dealt to
# COLUMNS: of one column tile, a multiple of INNER
# FOLD   : rows that are read as one row of FOLD times as many columns
# TILE   : elements of one run, or of a folded row that is written
# AT_ONCE: rows of columns whose gradients are summed side by side; 1 where caches do not hold them
# UNBROKEN: whether rows follow each other without a gap, and are not cut into tiles: one run, to be cut anywhere
# AHEAD  : whether sums fetch what they read next
CUTS, CHUNKS, COLUMNS, FOLD, STREAM, TILE, AT_ONCE, UNBROKEN, AHEAD = 5, 6, 7, 8, 9, 10, 11, 12, 13
WIDTH = 14

# An operand's row: index (or byte) of its first element and distances along b, o, c, i.
START, STEP_BATCH, STEP_OUTER, STEP_CHANNEL, STEP_INNER = 0, 1, 2, 3, 4

# Rows. PARAM is where the parameters of element (b, o, c, i) stand, if no two elements of a run share them.
PROBLEM, SRC, OUT, EXTRA, GRAD, GRAD_EXTRA, PARAM = 0, 1, 2, 3, 4, 5, 6
N_ROWS = 7

# What is asked for of the moments of every statistic.
MEAN_OF, VARIANCE_OF, STD_OF = 0, 1, 2
# In place of eps, where 1 / sqrt(variance + eps) is not asked for.
NO_RSTD = -1.0
