"""What a product of bfloat16 packs on a CPU, beside its operands and its result: oneDNN's brgemm matmul.

In: the rows of the left operand, how many elements are summed, whether the left operand lies transposed, and threads.
Out: bytes. Both the estimate on the graph (`memory.py`) and the count of the lowered program (`lower/workspace.py`) use
it; it knows no torch.
"""

from __future__ import annotations

ROWS_OF_A_TILE, COLUMNS_OF_A_TILE = 256, 64


def packed_bytes(rows: int, summed: int, turned: bool, threads: int) -> int:
    """A thread's packed columns of the right operand and float32 tile of the result; of a transposed left operand its
    packed rows too.

    src/cpu/x64/matmul/brgemm_matmul.cpp; fitted to oneDNN 3.x with AVX-512. An estimate: on one thread, with AVX-512
    and without AMX, it was exact up to 512 summed elements; elsewhere the blocks are other ones.
    """
    rows = -(-rows // -(-rows // ROWS_OF_A_TILE))
    summed = -(-summed // 64) * 64
    block = summed if summed <= 512 else 512 if summed < 2048 else 1024
    tile = COLUMNS_OF_A_TILE * (2 * block + 4 * rows)
    packed = 2 * rows * (block + (0 if block % 512 else 32)) + 128 if turned else 0
    return threads * (tile + packed) + 1024
