"""One plot a file. A plot takes numbers and a path, and writes a picture that is legible in
gray.
"""
