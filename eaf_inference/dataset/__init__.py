"""Score data sets of files: what they consist of, how they are read, run and written; without Dask or with it."""
