"""Sweeps: many jobs as one run, where each runs, and searches that choose the next one by the results so far.

parent_run      the sweep's own run in MLflow, with its jobs below it
worker          runs a job, in whatever process
job_store       the results of the jobs, in files that outlive every process
report          the table of results, and what each parameter does
optuna_sweeper  hydra/sweeper=optuna: which job is tried next, and which is pruned
ray_launcher    hydra/launcher=ray: jobs on a Ray cluster
plugins         registers the two with Hydra
"""
