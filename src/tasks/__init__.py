"""What a model learns on a data set: one module and one class for each task.

base                  the interface of a task
factory               creates a task from the registry (src/config/tasks.py)
classification        shared by image and text classification
reference_classifier  a trained classifier, whose features generated images are measured in
generative_metrics    distances between real and generated images
losses                of texts and forecasts
tokenizers            of texts
gaps                  missing values of a series
figures               drawing of images
html, report          pages and tables of results

This file imports none of them: a served model needs `tokenizers` alone.
"""
