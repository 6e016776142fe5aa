"""The benchmark suite: autolink beside its neighbours, measured in one run. See README.md."""
