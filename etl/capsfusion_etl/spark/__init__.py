"""Spark itself: sessions and clusters, nothing about captions.

`session` returns the cluster's session or starts a local one, `s3a` configures it for S3, `preflight` checks the
workers' Python before anything is paid for, `gpu` gives each task a GPU of its own, `persist` caches rows where the
platform allows it, `interrupts` ends a process that is asked to stop while it waits for a job.
"""
