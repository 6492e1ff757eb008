"""The commands of ``sparkshark``, one module each: ``add`` declares options, ``run`` returns the exit status."""
