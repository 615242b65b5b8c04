"""The only door to the C kernels in csrc/.

Each module releases the GIL once per batch, never per member.
"""
