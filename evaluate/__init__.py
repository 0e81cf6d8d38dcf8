if __name__ == "evaluate":  # reached through the working directory, not through mlalign
    raise ImportError(
        "this folder is mlalign.evaluate; set PYTHONSAFEPATH=1 or run from another folder"
    )
