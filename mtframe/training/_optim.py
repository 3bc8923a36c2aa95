"""Optimiser, learning-rate schedule and averaged weights, all of them timm's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from timm.optim import create_optimizer_v2, list_optimizers
from timm.scheduler import create_scheduler_v2
from timm.scheduler.scheduler import Scheduler
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor, nn

from mtframe.errors import CheckpointError, RecipeError
from mtframe.recipe import TrainOptions
from mtframe.registry import did_you_mean

from ._groups import optimizer_groups, settings_of

# Those of timm's that need nothing but the step. Its factory has no list of its own.
_SCHEDULES = ("cosine", "constant", "multistep", "poly", "step", "tanh")

# Of a group of parameters, what schedules set, and what optimisers count: some only from their first step on.
_SCHEDULED, _COUNTERS = ("lr", "initial_lr"), ("step", "lookahead_step")

# What lookahead keeps of a parameter, from its first slow step on; like the parameter.
_SLOW = "lookahead_slow_buff"

# These need the loss's second derivatives, which no step of ours computes.
_SECOND_ORDER = ("adahessian",)

# timm's names of torch's own SGD.
_TORCH_SGD = ("sgd", "momentum", "nesterov")


def make_optimizer(model: nn.Module, balancer: object, options: TrainOptions) -> torch.optim.Optimizer:
    """The optimiser over all parameters that are not frozen; no weight decay on biases, norms and the balancer's.

    Raises:
        RecipeError: timm knows no such optimiser, or `train.groups` names nothing of the model.
    """
    known = [name for name in list_optimizers() if not name.startswith(_SECOND_ORDER)]
    if options.optimizer.lower().removeprefix("lookahead_") not in known:
        raise RecipeError(
            f"train.optimizer: timm.optim has no {options.optimizer!r}{did_you_mean(options.optimizer, known)}\n"
            f"It has {', '.join(known)}"
        )
    optimizer = _create(model, options)
    if isinstance(balancer, nn.Module) and (own := list(balancer.parameters())):
        optimizer.add_param_group({"params": own, "weight_decay": 0.0})
    return optimizer


def _create(model: nn.Module, options: TrainOptions) -> torch.optim.Optimizer:
    common = {"lr": options.lr, "weight_decay": options.weight_decay, "momentum": options.momentum}
    # timm's sgd is Nesterov's, which is nothing without momentum; its momentum is the plain one.
    plain = options.momentum == 0 and options.optimizer.lower().removeprefix("lookahead_") == "sgd"
    name = options.optimizer.lower().replace("sgd", "momentum") if plain else options.optimizer
    # torch's fused SGD fails where some parameters have a momentum by now and others, of tasks that were not trained
    # yet, have none.
    fused = {} if name.lower().removeprefix("lookahead_") in _TORCH_SGD else {"fused": True}
    groups = optimizer_groups(model, settings_of(model, options))
    try:
        # torch's own optimisers in one pass over the parameters: AdamW on two cores takes a sixth of the time.
        return create_optimizer_v2(groups, opt=name, **fused, **common)
    except (TypeError, RuntimeError):
        # An optimiser, or a device, that has no such thing.
        pass
    except (ValueError, AssertionError) as error:
        raise RecipeError(f"train.optimizer: timm.optim cannot make {options.optimizer!r} ({error})") from None
    return create_optimizer_v2(groups, opt=name, **common)


def learning_rate(optimizer: torch.optim.Optimizer) -> float:
    """The rate, as it is set at the moment, of a part whose `lr_scale` is 1."""
    group = optimizer.param_groups[0]
    return float(group["lr"] / group.get("lr_scale", 1.0))


def check_optimizer(saved: Mapping[str, Any], optimizer: torch.optim.Optimizer, step: int) -> None:
    """Raises CheckpointError if a state is not of an optimiser of these parameters; a fused step would then crash.

    Args:
        saved: The state.
        optimizer: As the recipe has it, new. It is stepped to see what it keeps, so its state and its parameters must
            be loaded afterwards.
        step: Updates done.
    """
    groups, state = saved.get("param_groups"), saved.get("state")
    here = optimizer.state_dict()["param_groups"]
    if not isinstance(groups, list) or not isinstance(state, Mapping) or len(groups) != len(here):
        raise CheckpointError("the optimiser's state is not one of this recipe's optimiser")
    for ours, theirs in zip(here, groups, strict=True):
        if (
            not isinstance(theirs, Mapping)
            or not ours.keys() <= theirs.keys() <= {*ours, *_COUNTERS}
            or theirs["params"] != ours["params"]
        ):
            raise CheckpointError("the optimiser's groups of parameters are not those of this recipe's optimiser")
        for name, value in theirs.items():
            if name in _COUNTERS:
                if not _is_count(value) or not 0 <= float(value) <= step:
                    raise CheckpointError(f"the optimiser's {name} is {value!r}, of {step} done")
            elif not _is_alike(value, ours[name]) or (name not in _SCHEDULED and value != ours[name]):
                raise CheckpointError(f"the optimiser's {name} is {value!r}, and {ours[name]!r} in this recipe's")
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    known = _kept(optimizer)
    for number, its in state.items():
        if not isinstance(number, int) or not 0 <= number < len(parameters) or not isinstance(its, Mapping):
            raise CheckpointError(f"the optimiser's state has an unknown parameter {number!r}")
        kinds = known.get(number, {})
        if its.keys() - {_SLOW} != kinds.keys() - {_SLOW}:
            raise CheckpointError(
                f"the optimiser keeps {', '.join(sorted(map(str, its))) or 'nothing'} of parameter {number}, and this "
                f"recipe's keeps {', '.join(sorted(kinds)) or 'nothing'}"
            )
        for name, value in its.items():
            kind = kinds.get(name) or _kind(parameters[number])
            if _kind(value) != kind:
                raise CheckpointError(
                    f"the optimiser's {name} of parameter {number} is {_kind(value)}, and {kind} in this recipe's"
                )
            if isinstance(value, Tensor) and not value.isfinite().all():
                raise CheckpointError(f"the optimiser's {name} of parameter {number} is not finite")
            if name == "step" and not 0 <= float(value) <= step:
                raise CheckpointError(f"the optimiser's step of parameter {number} is {float(value):g}, of {step} done")


def _kept(optimizer: torch.optim.Optimizer) -> dict[int, dict[str, str]]:
    """What an optimiser keeps of each parameter: by the parameter's number and the value's name, the kind of value.

    Only a step tells: some choose by a parameter's sizes, and sum over dimensions.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad()
    state = optimizer.state_dict()["state"]
    return {number: {name: _kind(value) for name, value in its.items()} for number, its in state.items()}


def _kind(value: object) -> str:
    """The type of what an optimiser keeps; of a tensor, its type and sizes."""
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    return type(value).__name__


def _is_count(value: Any) -> bool:
    """Whether a value is a whole number, or a tensor of one number, as some optimisers count."""
    return type(value) is int or (isinstance(value, Tensor) and value.numel() == 1)


def _is_alike(value: object, known: object) -> bool:
    """Whether an option of an optimiser has the type that it should have; a schedule may make a float of a number."""
    if isinstance(known, bool) or not isinstance(known, int | float):
        return isinstance(value, type(known))
    return isinstance(value, int | float) and not isinstance(value, bool)


def make_scheduler(optimizer: torch.optim.Optimizer, options: TrainOptions, updates: int) -> Scheduler:
    """The schedule, counted in optimiser steps: a linear warm-up, then timm's schedule of that name.

    Raises:
        RecipeError: timm knows no such schedule.
    """
    if options.lr_schedule not in _SCHEDULES:
        raise RecipeError(
            f"train.lr_schedule: timm.scheduler has no {options.lr_schedule!r}"
            f"{did_you_mean(options.lr_schedule, _SCHEDULES)}; it has {', '.join(_SCHEDULES)}"
        )
    warmup = round(options.warmup * updates)
    extra: dict[str, Any] = {}
    if options.lr_schedule == "poly":
        extra["decay_rate"] = 1.0
    elif options.lr_schedule == "step":
        extra["decay_epochs"] = max(1, (updates - warmup) // 3)
    elif options.lr_schedule == "multistep":
        extra["decay_milestones"] = [round((updates - warmup) * part) for part in (0.67, 0.89)]
    scheduler, _ = create_scheduler_v2(
        optimizer,
        sched=options.lr_schedule,
        num_epochs=max(1, updates - warmup),
        warmup_epochs=warmup,
        warmup_prefix=True,
        warmup_lr=options.lr / max(1, warmup),
        min_lr=options.min_lr,
        **extra,
    )
    return scheduler


def make_average(model: nn.Module, options: TrainOptions) -> ModelEmaV3 | None:
    """The exponential moving average of all weights, which is what is evaluated; None if switched off."""
    if options.ema is None:
        return None
    # The warm-up lets the average follow closely at first, so that short runs are not held back by their start.
    return ModelEmaV3(model, decay=options.ema, use_warmup=True, warmup_gamma=1.0, warmup_power=0.75)
