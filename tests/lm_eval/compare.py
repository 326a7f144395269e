"""Runs lm-evaluation-harness twice over the tasks of this folder, with its own `hf` models and with `headwater`, and compares.

    python compare.py --binary ../../target/debug/headwater [--record]

Fails unless every metric is the same and every single log-likelihood is within 1e-4 (relative to its size above 1).
`--record` writes what the `hf` side was asked and answered to `recorded.json`, which the everyday tests hold `headwater` to.
"""

import argparse
import json
import os
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent

import lm_eval.models  # noqa: E402  (after the environment, which it reads; registers `hf`)
from lm_eval.tasks import TaskManager  # noqa: E402

sys.path.insert(0, str(HERE))
import headwater_lm  # noqa: E402,F401  (registers the model)

# Model: the id before texts that have no context, and the tasks. The second is not trained and has a first id of its own;
# its replies are left out, because ids that end a turn end ours, whether its configuration names them or not.
MODELS = {
    "www/models/tiny-assistant": (2047, ["headwater_choice", "headwater_reply", "headwater_text"]),
    "tests/data/models/llama3": (None, ["headwater_choice", "headwater_text"]),
}
TOLERANCE = 1e-4


def evaluate(kind, arguments, tasks):
    results = lm_eval.simple_evaluate(kind, model_args=arguments, tasks=tasks, batch_size=1, bootstrap_iters=0,
                                      task_manager=TaskManager(include_path=str(HERE / "tasks")))
    metrics = {(task, name): value for task, found in results["results"].items() for name, value in found.items()
               if isinstance(value, float) and "stderr" not in name}
    answers = {task: [(sample["arguments"], sample["resps"]) for sample in samples]
               for task, samples in results["samples"].items()}
    return metrics, answers


def plain(value):
    """The answer of a request: a number, a text, or a number and whether it is greedy."""
    while isinstance(value, (list, tuple)) and len(value) == 1:
        value = value[0]
    return value


def near(one, other):
    if isinstance(one, str):
        return one == other
    if isinstance(one, (list, tuple)):
        return near(one[0], other[0]) and str(one[1]) == str(other[1])
    return abs(float(one) - float(other)) <= TOLERANCE * max(1.0, abs(float(one)))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", required=True)
    parser.add_argument("--backend", default="cpu")
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()
    binary = str(Path(options.binary).resolve())
    os.chdir(HERE / "tasks")  # the tasks name their files from here
    wrong, recorded = [], {}
    for model, (prefix, tasks) in MODELS.items():
        hf = {"pretrained": str(ROOT / model), "dtype": "float32", "device": "cpu", "max_length": 512}
        ours = {"model": str(ROOT / model), "binary": binary, "backend": options.backend, "exact": True}
        if prefix is not None:
            hf["prefix_token_id"] = ours["prefix_token_id"] = prefix
        (metrics, answers), (our_metrics, our_answers) = evaluate("hf", hf, tasks), evaluate("headwater", ours, tasks)
        print(f"\n{model}\n{'task':<20} {'metric':<28} {'hf':>16} {'headwater':>16}")
        for (task, name), value in metrics.items():
            found = our_metrics[task, name]
            print(f"{task:<20} {name:<28} {value:>16.6f} {found:>16.6f}")
            if not near(value, found):
                wrong.append(f"{model}: {task}: {name}: {value} and {found}")
        worst = 0.0
        for task, samples in answers.items():
            for (asked, answer), (_, found) in zip(samples, our_answers[task], strict=True):
                for one, other in zip(answer, found, strict=True):
                    one, other = plain(one), plain(other)
                    if not near(one, other):
                        wrong.append(f"{model}: {task}: {one} and {other} for {asked}")
                    if not isinstance(one, str):
                        first = one[0] if isinstance(one, (list, tuple)) else one
                        second = other[0] if isinstance(other, (list, tuple)) else other
                        worst = max(worst, abs(float(first) - float(second)))
        print(f"largest difference of a log-likelihood: {worst:.2e}")
        recorded[model] = {"prefix": prefix, "metrics": {f"{task} {name}": value for (task, name), value in metrics.items()},
                           "answers": {task: [{"asked": asked, "answers": [plain(one) for one in answer]}
                                              for asked, answer in samples] for task, samples in answers.items()}}
    if options.record:
        (HERE / "recorded.json").write_text(json.dumps(recorded, indent=1, ensure_ascii=True, default=str) + "\n")
    for line in wrong:
        print("DIFFERS", line)
    sys.exit(1 if wrong else 0)


main()
