"""What each mistake is answered with, word for word."""
