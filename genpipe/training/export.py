"""What a finished training leaves: weights, the resolved recipe, a model card, a learning curve."""

import csv
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from genpipe.errors import BadState
from genpipe.files import FRAMES, TRAINED, WEIGHTS, new_directory, new_file, write_json
from genpipe.training.checkpoint import best_checkpoint, latest_checkpoint, save_weights
from genpipe.training.frames import stacked
from genpipe.training.log import rows_of
from genpipe.training.processor import described
from genpipe.training.runs import RunFiles

PROCESSES = {
    "exact": "the number of processes does not matter",
    "fast": "with exchange: fast, their last bits depend on the number of processes too",
}


def is_finished(run: RunFiles, steps: int) -> bool:
    """Whether the checkpoint of the last step is there, and whole."""
    checkpoint = latest_checkpoint(run)
    return checkpoint is not None and checkpoint.step == steps


def export(
    run: RunFiles,
    card: Mapping[str, Any],
    out: Path,
    curve: Path,
    data: Mapping[str, Any],
    codec: Sequence[Path],
) -> None:
    """Write weights.safetensors, frames.safetensors where there are frames, recipe.json, card.md and data.json to `out`, copies of
    `codec`, and the learning curve.

    `data` is what data.json says, with the facts as the model was built with them; `codec` are the files that turn text into ids.
    """
    training = card["train"]
    last = latest_checkpoint(run)
    if last is None or last.step != training["steps"]:
        raise BadState(f"{run.place}: the last checkpoint is missing; run the same command again to finish")
    chosen = best_checkpoint(run, last) or last
    rows = averaged(rows_of(last.log.text.splitlines()), training["log_every"])
    parameters = sum(tensor.numel() for tensor in chosen.weights.values())
    with new_directory(out, TRAINED) as partial:
        save_weights(chosen.result, partial / WEIGHTS)
        if last.frames:
            save_weights(stacked(last.frames), partial / FRAMES)
        write_json(partial / "recipe.json", {**card, "parameters": parameters, "step": chosen.step})
        text = model_card(card, parameters, chosen.step, rows[-1])
        (partial / "card.md").write_text(text, encoding="utf-8")
        write_json(partial / "data.json", data)
        for file in codec:
            shutil.copyfile(file, partial / file.name)
    with new_file(curve) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter="\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(
        f"wrote {out} ({parameters:,} parameters and buffers, the weights of step {chosen.step} of {training['steps']})"
    )


def averaged(steps: list[dict[str, float]], every: int) -> list[dict[str, float]]:
    """The mean of each metric over every `every` steps; the first update's loss is also called `loss`."""
    rows: list[dict[str, float]] = []
    names = list(dict.fromkeys(name for step in steps for name in step if name != "step"))
    loss = next(name for name in names if name.endswith(".loss"))
    for start in range(0, len(steps), every):
        part = steps[start : start + every]
        values = {name: [step[name] for step in part if name in step] for name in names}
        means = {name: float(f"{sum(x) / len(x):.6g}") if x else float("nan") for name, x in values.items()}
        rows.append({"step": part[-1]["step"], "loss": means[loss], **means})
    return rows


def model_card(card: Mapping[str, Any], parameters: int, step: int, last: Mapping[str, float]) -> str:
    """What a person who finds the weights wants to know."""
    training = card["train"]
    begun = card["start"]
    start = f"; it began with the weights of {begun['model']}, sha256 {begun['sha256']}" if begun else ""
    libraries = described({**card["processor"], **card["libraries"]})
    figures = ", ".join(
        f"{name} {value:g}" for name, value in last.items() if name != "step" and value == value
    )
    return (
        f"# {card['recipe']}\n\n- model: {card['model']}, which genpipe/models describes{start}\n"
        f"- parameters and buffers: {parameters:,}\n- steps: {step} of {training['steps']}, batch {training['batch_size']} in "
        f"{training['logical_workers']} slices, seed {card['seed']}\n- data: {card['data']}, sha256 {card['data_sha256']}\n"
        f"- code: sha256 {card['code_sha256']}, on {card['device']} with {libraries}\n- end of training: {figures}\n\n"
        f"The weights are a function of the data, code and parameters above; {PROCESSES[training['exchange']]}.\n"
    )
