"""Networks that several families are built of: CLIP's text transformer, the U-Net, the VAE.

They are written here, and not imported from diffusers and transformers, because importing those
costs three times the CPU time of torch itself before anything is done. Parameters have the names
diffusers and transformers give them; the tests hold outputs equal to theirs.
"""
