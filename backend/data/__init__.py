"""The dataset engine: from folders and files to batches.

``plan`` finds, checks and measures pictures without torch; ``loader`` turns a plan into batches.
"""
