"""One of several processes of a training on the small model: started by torchrun, told by JSON what to do."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from backend.data.plan import build_plan
from backend.jobs.runs import create_run
from backend.settings import check
from backend.system.identify import ModelFile
from backend.train import build
from backend.train.loop import train
from backend.train.preflight import Prepared
from backend.train.team import join
from tests.train import small


def main(home: Path, name: str, options: dict[str, Any]) -> None:
    """Train to the end, and let the main process write the losses into ``<name>.json``."""
    team = join(None)
    if options.get("deepspeed"):
        _do_not_compile()
    verdict = check(small.settings_of(home / "pictures", output_name=name, **options), complete=False)
    assert not verdict.errors, verdict.errors
    settings, events = verdict.settings, small.Events()
    plan = build_plan(settings, verify=False, default_resolution=64)
    prepared = Prepared(settings, plan, ModelFile(Path("base.safetensors"), "base", "sd1"), ())
    build.load_base_model = lambda *_: small.SmallModel()
    run = create_run(home / f"runs{team.rank}", name, "", None)
    session, position = build.build_session(run, prepared, False, events, 0.0, team)
    _, position = train(session, position)
    session.meter.gather(team)
    session.saver.finish(session, position)
    if team.main:
        found = {kind: [record["loss"] for record in events.of(kind)] for kind in ("step", "validation")}
        norms = [record["grad_norm"] for record in events.of("step")]
        split = {id(p): p.numel() for p in session.method.trainable.parameters()}
        text = json.dumps(
            {**found, "norms": norms, "split": session.parts.split, "numbers": sum(split.values())}
        )
        (home / f"{name}.json").write_text(text, encoding="utf-8")
    team.leave()


def _do_not_compile() -> None:
    """On processors DeepSpeed would spend minutes on compiling a faster exchange than gloo."""
    ops: Any = importlib.import_module("deepspeed.ops")
    ops.__compatible_ops__["deepspeed_shm_comm"] = False


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3]))
