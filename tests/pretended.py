"""Types a line of distill as if this machine had a GPU: `python tests/pretended.py train device=cuda ...`

A tensor there says that it is on cuda, is computed by the CPU, and refuses to meet a tensor of the CPU, as a GPU's does. So what
mixes the two is found without a GPU; kernels, half precision and speed are not. At the end stands a line of JSON: the exit code,
and by place in the code how often steps of training made the CPU wait for the GPU.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

CUDA, META = torch.device("cuda", 0), torch.device("meta")  # as torch's own side of such a tensor has it
WAIT = {"aten::_local_scalar_dense", "aten::nonzero", "aten::repeat_interleave", "aten::equal"}
MEET = {"aten::_to_copy", "aten::copy_", "aten::index", "aten::index_put_"}  # may take tensors of both
SETTLED = 12  # steps, of which some look at the terms' gradients
waits, in_steps = Counter[str](), Counter[str]()


def wait() -> None:
    ours = [frame for frame in traceback.extract_stack() if "/distill_cli/" in frame.filename]
    waits[" < ".join(f"{frame.filename.split('/distill_cli/')[1]} {frame.name}" for frame in reversed(ours[-2:]))] += 1


class There(torch.Tensor):
    """A tensor on the GPU."""

    held: torch.Tensor
    device: Any = property(lambda self: CUDA)
    is_cuda: Any = property(lambda self: True)
    is_meta: Any = property(lambda self: False)

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> There:
        make: Any = torch.Tensor._make_wrapper_subclass
        place, kind = {"strides": inner.stride(), "storage_offset": inner.storage_offset()}, inner.dtype
        made: There = make(cls, inner.size(), **place, dtype=kind, device=META)
        made.held = inner.detach()
        return made

    def __deepcopy__(self, memo: Any) -> There:
        made = There(self.held.clone())
        made.__dict__ |= {
            name: value for name, value in vars(self).items() if name != "held"
        }  # whether it is a parameter
        return made.requires_grad_(self.requires_grad)  # type: ignore[return-value]

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.held.__reduce_ex__(protocol)

    def tolist(self) -> Any:
        wait()
        return self.held.tolist()

    def numpy(self, **_: Any) -> Any:
        raise TypeError("can't convert a cuda tensor to numpy")

    @classmethod
    def __torch_dispatch__(cls, call: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        return computed(call, args, kwargs or {})


class Everywhere(TorchDispatchMode):
    """What is made on cuda is made there."""

    def __torch_dispatch__(self, call: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(call, args, kwargs or {})


def computed(call: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    name, flat = call._schema.name, tree_flatten((args, kwargs))[0]
    theirs = [one for one in flat if isinstance(one, There)]
    ours = [one for one in flat if isinstance(one, torch.Tensor) and not isinstance(one, There)]
    goes = bool(theirs)
    if kwargs.get("device") is not None:
        goes = torch.device(kwargs["device"]).type != "cpu"
    if theirs and name not in MEET and any(one.dim() for one in ours):
        shapes = [tuple(one.shape) for one in flat if isinstance(one, torch.Tensor)]
        raise RuntimeError(f"Expected all tensors to be on the same device: {name} {shapes}")
    if name.startswith("aten::index") and theirs and not isinstance(args[0], There):
        raise RuntimeError("indices should be on the same device as the indexed tensor (cpu)")
    masks = [one for one in flat[1:] if isinstance(one, There) and one.dtype == torch.bool]
    crosses = name == "aten::_to_copy" and goes != bool(theirs) and not (goes and kwargs.get("non_blocking"))
    crosses = crosses or (name == "aten::copy_" and bool(theirs and ours))
    if crosses or (theirs and name in WAIT) or (name == "aten::index" and masks):
        wait()
    plain = {**kwargs, **({"device": torch.device("cpu")} if kwargs.get("device") is not None else {})}
    args, plain = tree_map(lambda one: one.held if isinstance(one, There) else one, (args, plain))
    same = {id(one.held): one for one in theirs}  # what is written over stays the same tensor

    def there(one: Any) -> Any:
        if goes and isinstance(one, torch.Tensor) and not isinstance(one, There):
            return same[id(one)] if id(one) in same else There(one)
        return one

    made = call(*args, **plain)
    return tree_map(there, made)


def pretend() -> None:
    """Change what of torch would ask a driver."""
    cuda, to, tensor, new = torch.cuda, torch.Tensor.to, torch.tensor, torch.Tensor.new_tensor
    facts = {"is_available": True, "device_count": 1, "is_bf16_supported": False, "get_device_name": "pretended"}
    for name, value in facts.items():
        setattr(cuda, name, lambda *_, value=value, **__: value)
    for place, names in {
        cuda: "synchronize manual_seed_all empty_cache _lazy_init",
        torch.accelerator: "synchronize",
        torch.optim.Optimizer: "_accelerator_graph_capture_health_check _cuda_graph_capture_health_check",
    }.items():
        for name in names.split():
            setattr(place, name, lambda *_: None)

    def changed(one: Any) -> Any:
        return META if isinstance(one, torch.device | str) and str(one).startswith("cuda") else one

    def new_tensor(self: torch.Tensor, data: Any, **how: Any) -> torch.Tensor:
        made = new(self.held if isinstance(self, There) else self, data, **how)
        return made.to(self.device)

    def moved(self: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        return to(self, *tree_map(changed, args), **tree_map(changed, kwargs))

    def made(data: Any, device: Any = None, **how: Any) -> torch.Tensor:
        return tensor(data, **how) if device is None else tensor(data, **how).to(device)

    torch.Tensor.to, torch.tensor, torch.Tensor.new_tensor = moved, made, new_tensor  # type: ignore[assignment, method-assign]
    torch.Tensor.pin_memory = lambda self, *_: self  # type: ignore[method-assign]
    torch.inference_mode = torch.no_grad  # type: ignore[assignment, misc] # whose tensors cannot stand in for others
    # A parameter that is moved stays the same one, as on a GPU.
    torch.__future__.set_swap_module_params_on_conversion(True)


def watched(steps: Any) -> Any:
    """The loop's steps, and where they wait: those of a settled epoch, whose first one also lays out its batches."""

    def fit(*args: Any, **kwargs: Any) -> Iterator[Any]:
        running, number = steps(*args, **kwargs), 0
        before: Any = {}
        while (row := next(running, running)) is not running:
            if row is before is None and number > SETTLED:
                in_steps.update(waits)
            number, before = number + 1, row
            yield row
            waits.clear()

    return fit


if __name__ == "__main__":
    pretend()
    from distill_cli.cli import main
    from distill_cli.training import loop

    loop.fit = watched(loop.fit)
    with Everywhere():
        code = main(sys.argv[1:])
    print(json.dumps({"code": code, "waits": in_steps}))
