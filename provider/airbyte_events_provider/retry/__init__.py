"""Going on with the job of an earlier try: what is written down of it, and how a retry finds it."""
