"""The class as a condition: whether there is one, and whether what is given is one."""

from collections.abc import Mapping

from torch import Tensor

from genpipe.errors import BadInput


def condition_classes(takes: bool, num_classes: int | None, knob: str = "conditional") -> int | None:
    """The number of classes where a knob of the network makes a model take them, else None; BadInput where the data has none."""
    if not takes:
        return None
    if not num_classes:
        raise BadInput(
            f"train.network.{knob}: the data has no labels; take data with classes, or leave {knob} out"
        )
    return num_classes


def labels_of_batch(batch: Mapping[str, Tensor], num_classes: int | None) -> Tensor | None:
    """The labels of a training batch, int64 [batch]; None where the model has no classes."""
    # unchecked, unlike labels_of: the data has checked them, and a slice may not decide by its numbers
    return None if num_classes is None else batch["labels"]


def labels_of(x: Mapping[str, Tensor], num_classes: int | None) -> Tensor | None:
    """The labels, int64 [n], of examples; None where the model has no classes; BadInput where they are no classes of it."""
    if num_classes is None:
        return None
    if "labels" not in x:
        raise BadInput(
            "the condition 'labels' is missing: the model is conditional by class; give it --given labels=…"
        )
    labels = x["labels"]
    outside = labels[(labels < 0) | (labels >= num_classes)]
    if len(outside):
        raise BadInput(f"labels: the classes of this model are 0 to {num_classes - 1}, not {int(outside[0])}")
    return labels
