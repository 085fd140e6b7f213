"""Many jobs as one: what they have come to, which one is tried next, and where they run.

jobs      how each has ended, in files that outlive every process
space     what a sweep varies, in Hydra's own words
search    hydra/sweeper=optuna: which job is tried next, and which is given up
ray       hydra/launcher=ray: jobs on a Ray cluster
gpu       which GPU is a job's own
plugins   makes Hydra know the two of them
"""
