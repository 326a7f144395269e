"""Measures a GGUF file natively with this package's program and with llama.cpp, in turns; prints the medians as JSON.

usage: python native.py HEADWATER MODEL.gguf [ROUNDS]
"""

import json
import os
import statistics
import subprocess
import sys
import time

from llama_cpp import Llama, __version__

PREFILL, DECODE = 128, 64


def headwater(binary, model):
    """What the program's own `bench` says of its CPU backend."""

    def run(_round):
        command = [binary, "bench", model, "--backend", "cpu", "--json", "--pp", str(PREFILL), "--tg", str(DECODE), "--context", "512"]
        report = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        return report["prefill"]["tokensPerSecond"], report["decode"]["tokensPerSecond"]

    return run


def llama(model, threads):
    """llama.cpp: ids evaluated together, then one by one, its cache emptied before."""
    engine = Llama(model, n_ctx=512, n_batch=512, n_threads=threads, n_threads_batch=threads, verbose=False)

    def run(round):
        engine.reset()
        started = time.perf_counter()
        engine.eval([1 + (at * 7 + round) % 200 for at in range(PREFILL)])
        middle = time.perf_counter()
        for at in range(DECODE):
            engine.eval([1 + at])
        return PREFILL / (middle - started), DECODE / (time.perf_counter() - middle)

    return run


def main():
    binary, model, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 5
    engines = {"headwater, native CPU": headwater(binary, model), "llama.cpp, 1 thread": llama(model, 1)}
    if (threads := os.cpu_count() or 1) > 1:
        engines[f"llama.cpp, {threads} threads"] = llama(model, threads)
    turns = {edge: [] for edge in engines}
    # Round 0 warms up.
    for round in range(rounds + 1):
        for edge, run in engines.items():
            turn = run(round)
            if round > 0:
                turns[edge].append(turn)
    reports = []
    for edge, all_turns in turns.items():
        prefill, decode = (statistics.median(rates) for rates in zip(*all_turns))
        reports.append({
            "edge": edge,
            "version": __version__ if edge.startswith("llama") else None,
            "prefill": {"tokens": PREFILL, "tokensPerSecond": prefill},
            "decode": {"tokens": DECODE, "tokensPerSecond": decode},
            "turns": [{"prefill": a, "decode": b} for a, b in all_turns],
        })
    print(json.dumps(reports))


main()
