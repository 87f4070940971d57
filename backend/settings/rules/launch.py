"""Several processes, cards and machines."""

from __future__ import annotations

from backend.settings.rules.rule import Rule

_MACHINES = ("num_machines", ">", 1)

RULES: tuple[Rule, ...] = (
    Rule(
        "machines-need-an-address",
        "error",
        (
            "all",
            _MACHINES,
            (
                "any",
                ("main_process_ip", "unset"),
                ("main_process_port", "unset"),
                ("main_process_port", "=", 0),
            ),
        ),
        "{num_machines} machines need main_process_ip and main_process_port to find each other",
        "give the address of machine 0, and a free port such as 29500, on all of them",
        key="main_process_ip",
    ),
    Rule(
        "machine-number",
        "error",
        ("machine_rank", ">=", ("key", "num_machines")),
        "machine_rank {machine_rank} is too high for {num_machines} machines",
        "they are counted from 0",
        key="machine_rank",
    ),
    Rule(
        "processes-on-machines",
        "error",
        ("all", _MACHINES, ("num_processes", "not multiple of", ("key", "num_machines"))),
        "{num_processes} processes cannot be shared out evenly among {num_machines} machines",
        "num_processes counts those of all machines, as many on each",
        key="num_processes",
    ),
    Rule(
        "machine-options-idle",
        "note",
        ("all", ("num_machines", "=", 1), ("main_process_ip", "set")),
        "main_process_ip has no effect with one machine",
        key="main_process_ip",
    ),
    Rule(
        "steps-not-alike",
        "error",
        ("all", ("ddp_static_graph", "set"), ("module_dropout", ">", 0)),
        "ddp_static_graph and module_dropout exclude each other",
        "leave one of them out",
        why="a step that leaves modules out does not use the same weights as the one before",
        key="ddp_static_graph",
    ),
)
