"""The pages of ``docs/`` inside the program: no network and no repository host is needed to read them."""
