"""Copy pictures into folders named '<repeats>_<words>', as trainings read them.

python tools/make_dreambooth_folder.py PICTURES TARGET --instance_prompt sks --class_prompt dog --repeats 40

With --wanted_steps 1500 the repeats are worked out.

Makes TARGET/img and, with regularisation pictures, TARGET/reg. The originals stay as they are.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backend.errors import run_main


def main() -> int:
    from backend.data.edit.build import propose
    from backend.data.edit.folder import Concept, make_dreambooth_folder
    from backend.data.edit.terminal import ProgressLine

    options = _parser().parse_args()
    words = " ".join(filter(None, (options.instance_prompt.strip(), options.class_prompt.strip())))
    repeats = options.repeats
    if options.wanted_steps:
        proposal = propose(
            options.pictures,
            kind="subject" if options.instance_prompt.strip() else "style",
            trigger=options.instance_prompt,
            class_word=options.class_prompt,
            wanted_steps=options.wanted_steps,
            batch_size=options.train_batch_size,
            epochs=options.max_train_epochs,
            reg_folder=options.reg_pictures,
        )
        repeats = proposal.repeats
        print(f"{repeats} repeats, {proposal.epochs} epochs: {proposal.steps} steps")
        for note in proposal.notes:
            print(f"note: {note}")
    concepts = [Concept(options.pictures, words, repeats)]
    if options.reg_pictures:
        concepts.append(Concept(options.reg_pictures, options.class_prompt, options.reg_repeats, is_reg=True))
    with ProgressLine("copying", "files") as progress:
        report = make_dreambooth_folder(options.target, concepts, link=options.link, progress=progress)
    print(report.text())
    print(f"train with --train_data_dir {options.target / 'img'}")
    return 4 if report.failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("pictures", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--instance_prompt", default="", help="the trigger word: sks")
    parser.add_argument("--class_prompt", default="", help="what it is: dog")
    parser.add_argument("--repeats", type=int, default=40, help="[%(default)s]")
    parser.add_argument("--reg_pictures", type=Path, help="a folder of pictures of the class in general")
    parser.add_argument("--reg_repeats", type=int, default=1, help="[%(default)s]")
    parser.add_argument("--wanted_steps", type=int, help="work the repeats out for so many steps")
    parser.add_argument("--train_batch_size", type=int, default=1, help="for --wanted_steps [%(default)s]")
    parser.add_argument("--max_train_epochs", type=int, default=10, help="for --wanted_steps [%(default)s]")
    parser.add_argument(
        "--link", action="store_true", help="share the pictures' bytes on disk where it can be done"
    )
    return parser


if __name__ == "__main__":
    sys.exit(run_main(main))
