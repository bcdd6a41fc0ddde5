"""One module per array library. No other part of xbp imports one, except NumPy."""
