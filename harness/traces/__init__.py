"""Traces, the rows of a table that are looked up: made (synth), read (formats), kept (trace), described (stats)."""
