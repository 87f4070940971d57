"""The page: a view of run folders and settings. Never imports torch.

Nothing is sent anywhere: these switches must stand before Gradio is imported.
"""

import os

from ui.stubs import leave_out

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ.setdefault("HF_HUB_OFFLINE", "1")
leave_out()
