"""Tasks: in threads of this process, or on the workers of a Dask or Ray cluster."""
