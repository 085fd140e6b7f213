"""Builders of the user's own data: files that `dataset.path` names.

A data set is prepared once for each content of its files. What is no example is an error that says where it is, and nothing of
the data set stays behind.

base        what the builders share, and `create`
texts       texts with labels, and pairs of texts
series      time series, one or several
arrays      images in NumPy's arrays
corpus      text files for language modeling
folders     what images and audio share: folders of files, one for each class
images      folders of pictures
audio       folders of audio clips
tables      rows of CSV, TSV, JSON lines and Parquet
steps       the rows of tables as steps of series
timestamps  checks of the times of a series
encodings   encodings of text
"""
