"""What lies below everything: ranks, processes, files, extras, and small tools of the language."""
