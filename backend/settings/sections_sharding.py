"""Options of training whose weights, gradients and optimizer memory lie in parts on several cards."""

from __future__ import annotations

from backend.settings.methods import NETWORK, WHOLE
from backend.settings.option import Section, option

_FSDP = (("fsdp", (True,)),)
_DEEPSPEED = (("deepspeed", (True,)),)


class ShardingSettings(Section):
    """What several processes share out among them, so that each holds a part. It pays for whole models; a LoRA is small."""

    title = "Split over cards"
    on_resume = "safe"
    methods = (*NETWORK, *WHOLE)

    fsdp: bool = option(False, "Split up (FSDP)", "Each process keeps a part of what is trained, of its gradients and of the optimizer's memory (PyTorch's fully sharded data parallel). Needs several processes.", level="expert")
    fsdp_min_num_params: int | None = option(None, "Numbers in a piece", "Layers with more numbers than this are gathered one by one while they compute. Empty: all at once, which is faster.", ge=1, le=10**12, level="expert", methods=WHOLE, show_if=_FSDP)
    fsdp_reshard_after_forward: bool = option(True, "Let go between passes", "A piece is let go after the forward pass and gathered again for the backward pass: less memory, more traffic.", level="expert", methods=WHOLE, show_if=_FSDP)
    deepspeed: bool = option(False, "Split up (DeepSpeed)", "Each process keeps a part of the optimizer's memory and of the gradients (ZeRO); weights stay whole. Needs several processes and the package deepspeed.", level="expert")
    zero_stage: int = option(2, "ZeRO stage", "1 splits up the optimizer's memory, 2 gradients as well. To split up weights too (3), choose FSDP.", ge=0, le=3, level="expert", show_if=_DEEPSPEED)
    offload_optimizer_device: str | None = option(None, "Optimizer's memory in", "cpu: it lies in the computer's memory and steps are computed there, which is slower. Empty: on the cards.", choices=("cpu", "nvme"), level="expert", show_if=_DEEPSPEED)
