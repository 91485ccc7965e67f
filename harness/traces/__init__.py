"""Traces: which rows of a table are looked up, in order. Made (synth), read (formats), kept (trace), described (stats)."""
