"""Traces, the row numbers looked up: made (synth), read (formats), kept (trace), described (stats)."""
