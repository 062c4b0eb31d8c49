"""Methods that forward-backward models are compared with, on the same data and evaluation.

Sizes and rates are those that the authors of the comparison used, as read from their released code
(Jeen, Bewley and Cullen 2024, arXiv 2309.15178), with widths, batch and discount of the run.
"""
