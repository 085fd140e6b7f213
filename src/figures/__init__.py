"""The look of all figures and pages.

style  size, colors and title of Matplotlib's figures; the line that says which run a figure is of
html   figures that consist of text, as HTML pages
"""
