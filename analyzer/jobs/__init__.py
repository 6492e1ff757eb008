"""Several processes, or several machines, on one capture, with the same result as one."""

from analyzer.jobs.together import analyze

__all__ = ["analyze"]
