"""What a data set asks of a model: one module for each task, with its class.

base                  the interface of a task
registry              which class learns which task
reference_classifier  a finished run's classifier, which judges generated images
generative_metrics    by what it sees in them
losses, tokenizers    of texts
html, report          pages and tables of results

This file imports none of them: what is served needs `tokenizers` alone.
"""
