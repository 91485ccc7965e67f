"""From record files to one value, the report, by `analyse`: nothing here needs torch, Docker or a GPU."""
