"""Files and memory of this machine: reading what others wrote, and writing without a loss.

Every file that the program opens enters through this package, and every file that it writes leaves
through it, so that a damaged, hostile or oversized file is one line of an error, whatever the
parser of its format raises.

    paths        a path that is meant as a file is a regular file
    memory       how much memory is available, and a refusal that names the numbers
    atomic       a file that appears whole or not at all, and stays
    locks        one writer a folder
    owners       which process a thing on disk belongs to, and whether it lives
    boundary     whatever a parser raises becomes one line
    documents    JSON and YAML
    arrays       safetensors, npy, and files of torch that hold tensors alone
    hdf5         HDF5 and NetCDF files in which everything lies in the file itself
    parquet      tables of plain values

This package depends on `errors` alone.
"""
