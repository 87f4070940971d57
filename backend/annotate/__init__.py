"""Captions and tags for pictures, made by models, and the files they are kept in.

- ``settings``: every option, declared once; ``options``: command line, form and job out of it
- ``pictures``: finding pictures and decoding them ahead of the model
- ``tagger``, ``tagnames``, ``tagrules``: WD14 taggers, their tables of tags, what becomes of scores
- ``captioners``: BLIP, BLIP-2, GIT, Florence-2 and models that can be asked, behind one protocol
- ``models``: which there are, where they lie, and how they get there
- ``keeping``: what becomes of the caption files; every run can be taken back
- ``runs``: whole folders, with progress and a report
- ``metadata``, ``cleaning``, ``cleanrules``: captions and tags in one JSON file, and rules that clean them

Pages import ``settings``, ``options``, ``tagrules``, ``cleaning``, ``cleanrules``, ``models`` and
``folders`` only: those load neither torch nor ONNX Runtime.
"""
