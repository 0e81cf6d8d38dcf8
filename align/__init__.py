if __name__ == "align":  # reached through the working directory, not through mlalign
    raise ImportError(
        "this folder is mlalign.align; set PYTHONSAFEPATH=1 or run from another folder"
    )
