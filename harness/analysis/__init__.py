"""From record files to figures: nothing here needs torch, Docker or a GPU."""
