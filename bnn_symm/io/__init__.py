"""Files and memory of this machine: reading what others wrote, and writing without a loss.

Every file that the program opens enters through this package, and every file that it writes leaves through it, so
that a damaged, hostile or oversized file is one line of an error, whatever the parser of its format raises.

    paths        a path that is meant as a file is a regular file
    memory       how much memory is available, and a refusal that names the numbers
    atomic       a file that appears whole or not at all

This package depends on `errors` alone.
"""
