"""A data set with bad files, whose workers, Triton and driver are killed; a file larger than a worker's memory."""
