"""A model of lm-evaluation-harness that runs on the `headwater` command line.

Register it by importing this module, then name it like any other:

    lm_eval.simple_evaluate("headwater", model_args={"model": "qwen3-0.6b-q8_0.gguf", "backend": "gpu"}, tasks=[...])

Arguments: `model` (a file, folder or hub reference), `binary` (the program, `headwater` of the PATH by default), `backend`
("gpu" or "cpu"), `exact` (float activations, 32-bit keys and values), `prefix_token_id` (the id before texts without a
context; the tokenizer's own first id by default), `max_gen_toks`.

Texts become ids by the harness's own rules (`TemplateLM`), so that every request reaches the program as ids.
"""

import json
import subprocess

from lm_eval import utils
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model


@register_model("headwater")
class HeadwaterLM(TemplateLM):
    """One process of the program for a batch of scores, one for a reply, and one that lives on for ids of texts."""

    def __init__(self, model, binary="headwater", backend="gpu", exact=False, prefix_token_id=None, max_gen_toks=256, **_):
        super().__init__()
        self.program, self.model, self.max_gen_toks = binary, model, int(max_gen_toks)
        self.flags = ["--backend", backend] + (["--exact"] if exact else [])
        self.max_length = self._run("inspect", ["--json"])[0]["context"]
        self.tokenizers = {
            special: subprocess.Popen(
                [binary, "tokenize", model] + (["--add-special"] if special else []),
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8")
            for special in (False, True)
        }
        added = self.tok_encode("a", add_special_tokens=True)[:1]
        first = added if added != self.tok_encode("a", add_special_tokens=False)[:1] else []
        if prefix_token_id is None and not first:
            raise ValueError("this tokenizer puts nothing before a text: give `prefix_token_id`")
        self.first = first
        self.prefix = int(prefix_token_id) if prefix_token_id is not None else first[0]

    def _run(self, command, flags, lines=None):
        given = None if lines is None else "".join(json.dumps(line) + "\n" for line in lines)
        done = subprocess.run([self.program, command, self.model, *self.flags, *flags],
                              input=given, capture_output=True, text=True, encoding="utf-8")
        if done.returncode != 0:
            raise RuntimeError(f"headwater {command}: {done.stdout}{done.stderr}")
        return [json.loads(line) for line in done.stdout.splitlines()]

    @property
    def eot_token_id(self):
        return self.prefix

    def tok_encode(self, string, add_special_tokens=None, **_):
        process = self.tokenizers[add_special_tokens is not False]
        process.stdin.write(json.dumps({"text": string}) + "\n")
        process.stdin.flush()
        ids = json.loads(process.stdout.readline())["ids"]
        # A text that has the first id written in it gets no second one.
        return ids[1:] if add_special_tokens is None and self.first and ids[:2] == self.first * 2 else ids

    def _loglikelihood_tokens(self, requests, disable_tqdm=False, **_):
        items = []
        for _, context, continuation in requests:
            # As the harness's own models do: what is too long loses its beginning.
            ids = (context + continuation)[-(self.max_length + 1):]
            start = len(ids) - len(continuation)
            items.append({"context": ids[:start], "continuation": ids[start:]})
        return [(score["logprob"], score["is_greedy"]) for score in self._run("score", [], items)] if items else []

    def loglikelihood_rolling(self, requests, disable_tqdm=False):
        windows = []
        for index, request in enumerate(requests):
            tokens = self.tok_encode(request.args[0])
            parts = utils.get_rolling_token_windows(
                token_list=tokens, prefix_token=self.prefix, max_seq_len=self.max_length, context_len=1)
            windows += [(index, *part) for part in map(utils.make_disjoint_window, parts)]
        sums = [0.0] * len(requests)
        for (index, *_), (logprob, _) in zip(windows, self._loglikelihood_tokens(windows), strict=True):
            sums[index] += logprob
        return sums

    def generate_until(self, requests, disable_tqdm=False):
        return [self._reply(*request.args) for request in requests]

    def _reply(self, context, options):
        limit = int(options.get("max_gen_toks", self.max_gen_toks))
        ids = self.tok_encode(context)[-(self.max_length - limit):]
        flags = ["--json", "--ids", ",".join(map(str, ids)), "--max-tokens", str(limit)]
        sampled = options.get("do_sample", False)
        flags += ["--temperature", str(options.get("temperature", 1.0) if sampled else 0)]
        for name, flag in (("top_p", "--top-p"), ("top_k", "--top-k")):
            flags += [flag, str(options[name])] if sampled and name in options else []
        until = options.get("until") or []
        for stop in [until] if isinstance(until, str) else until:
            flags += ["--stop", stop]
        return self._run("generate", flags)[0]["text"]
