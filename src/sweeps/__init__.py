"""Many jobs as one: what they have come to, which one is tried next, and where they run.

parent_run      a run in MLflow with its jobs below it
worker          a job, in whatever process it runs
job_store       how each has ended, in files that outlive every process
report          which was best, and what each parameter does
optuna_sweeper  hydra/sweeper=optuna: which job is tried next, and which is given up
ray_launcher    hydra/launcher=ray: jobs on a Ray cluster
plugins         makes Hydra know the two of them
"""
