"""The Kubernetes objects that every run has, whatever its backend. Pure functions of the run."""
