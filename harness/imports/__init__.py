"""Traffic of whole models, as others keep it, made into a model's file."""
