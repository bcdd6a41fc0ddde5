"""One file per array library; nowhere else in xbp is one imported."""
