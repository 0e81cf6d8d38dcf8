if __name__ == "data_manifests":  # reached through the working directory, not through mlalign
    raise ImportError(
        "this folder is mlalign.data_manifests; set PYTHONSAFEPATH=1 or run from another folder"
    )
