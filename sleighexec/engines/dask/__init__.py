"""The engine on a Dask cluster: every batch of calls is a Dask task, and Dask schedules."""
