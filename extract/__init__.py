if __name__ == "extract":  # reached through the working directory, not through mlalign
    raise ImportError(
        "this folder is mlalign.extract; set PYTHONSAFEPATH=1 or run from another folder"
    )
