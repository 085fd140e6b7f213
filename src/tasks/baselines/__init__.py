"""Simple methods that a recipe should beat, by statsmodels and scikit-learn where they have them.

interface    what a baseline returns
forecasting  repeat last, drift, seasonal naive (with drift), ridge, autoregression, Holt–Winters, Theta
labels       frequencies of labels, one classifier for each label
classes      majority class, and scores to logits
images       logistic regression, k nearest neighbors, gradient boosting; also of audio
texts        TF–IDF with logistic regression, NB-SVM
language     unigrams, Kneser–Ney n-grams
translation  copy, word by word
store        computes the baselines of a task once, and keeps them beside the data
"""
