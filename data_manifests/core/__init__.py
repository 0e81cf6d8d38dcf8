"""What every stage needs and no dataset is about: strict settings, errors that a user can mend,
the shared part of the command lines, names of files, and files that are written whole or not at
all. It imports nothing else of mlalign.
"""
