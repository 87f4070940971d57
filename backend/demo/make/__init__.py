"""How the demo's small model is made: everything is trained from nothing on the demo world.

The stages are ``vae``, ``text``, ``judge`` and ``unet``; each can be stopped at any moment and resumed
from its newest snapshot, and trained further when it was finished.
"""
