"""What a product of bfloat16 packs on a CPU, beside its operands and its result: oneDNN's brgemm matmul.

In: the rows and columns of the result, how many elements are summed, whether the left operand lies transposed, and
threads. Out: bytes. The estimate on the graph (`memory.py`) and the count of the lowered program (`lower/workspace.py`)
both use it; it knows no torch.
"""

from __future__ import annotations

ROWS_OF_A_TILE, COLUMNS_OF_A_TILE = 256, 64


def packed_bytes(rows: int, columns: int, summed: int, turned: bool, threads: int) -> int:
    """Each thread's packed columns of the right operand; of each that has a tile of the result to make its float32
    tile, and of a transposed left operand, whose rows alone are shared out, its packed rows too.

    src/cpu/x64/matmul/brgemm_matmul.cpp; fitted to oneDNN 3.x with AVX-512. An estimate: on one thread and on two,
    with AVX-512 and without AMX, it was exact up to 512 summed elements; elsewhere the blocks are other ones.
    """
    tiles = -(-rows // ROWS_OF_A_TILE)
    working = min(threads, tiles if turned else tiles * -(-columns // COLUMNS_OF_A_TILE))
    rows = -(-rows // tiles)
    summed = -(-summed // 32) * 32
    block = summed if summed <= 512 else 512 if summed < 2048 else 1024
    packed = 2 * rows * (block + (0 if block % 512 else 32)) if turned else 0
    right = COLUMNS_OF_A_TILE * 2 * block
    aligned = 1024 + 640 * (threads - 1) + (128 if turned else 0)
    return threads * right + working * (COLUMNS_OF_A_TILE * 4 * rows + packed) + aligned
