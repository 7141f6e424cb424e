"""The figures of a device's host, where no record says them: what copies and an update there are priced by.

PCI Express 3.0 with 16 lanes carries 15.75 GB/s each way. Eight channels of DDR4-3200, 25.6 GB/s each, are 205 GB/s at
best, of which a stream of reads and writes gets about half.
"""

LINK_BYTES_PER_S = 15.75e9
MEMORY_BYTES_PER_S = 102e9
