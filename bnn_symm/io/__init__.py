"""Files, locks and memory of the local machine.

All files are read and written through this package, so that a damaged, malicious or oversized file
raises an error of one line, whatever its parser raises.

    paths        paths of regular files
    memory       available memory, and checks against it
    atomic       files that are written completely or not at all
    locks        one writer per folder
    owners       identity of the process that owns a file, and whether it is alive
    boundary     conversion of parser exceptions to errors of one line
    documents    JSON and YAML
    arrays       safetensors, npy, and torch files that contain only tensors
    hdf5         HDF5 and NetCDF files without references to other files
    parquet      tables of plain values
    checksums    SHA-256 of files

This package depends on `bnn_symm.errors` alone.
"""
