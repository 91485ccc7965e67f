"""Traffic of whole models, imported."""
