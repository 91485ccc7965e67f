"""Device code on the CPU: a design's own sources, compiled against a stand-in for CUDA.

It knows nothing of caches or time; but every index, address, sum and exchange between threads is the real
code's. What a kernel may touch lies between guards, and each run is a process of its own, so that a wrong
access is told in a sentence and harms nobody. Tests of host code launch the same kernels over memory of their
own, from a library (see compilation.py and device/entries.h): there a wrong access ends the process, in a
sentence.
"""
