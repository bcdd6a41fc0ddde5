"""How fast xbp is, beside what else there is: what ``xbp bench`` measures.

One file per contestant. Here, as in ``backends``, array libraries are imported.
"""
